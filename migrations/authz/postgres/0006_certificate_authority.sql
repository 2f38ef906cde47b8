-- The built-in certificate authority: its roots, the tokens by which workloads join, and what it has signed.
--
-- Root keys are sealed (AES-256-GCM) with a key that is not in this database.

CREATE TABLE ca_roots (
    fingerprint TEXT PRIMARY KEY,
    certificate TEXT NOT NULL,
    sealed_key TEXT NOT NULL,
    takes_over BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

-- By hash. A token is good for one id and one key: used_at and key_hash say by which.
CREATE TABLE join_tokens (
    token_hash TEXT PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    key_hash TEXT,
    serial TEXT
);
CREATE INDEX join_tokens_expires_at ON join_tokens (expires_at);

-- `attested_at`: when the first certificate of this line was proved for; renewals inherit it.
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    root TEXT NOT NULL REFERENCES ca_roots (fingerprint),
    certificate TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    proof TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    attested_at BIGINT NOT NULL,
    not_after BIGINT NOT NULL
);
CREATE INDEX certificates_by_id ON certificates (spiffe_id, issued_at);
CREATE INDEX certificates_not_after ON certificates (not_after);

-- Writes that were asked for under a key, so that asking again does not write again; and the history by object.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    wrote BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (caller, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_at ON idempotency_keys (at);
CREATE INDEX changes_by_object ON changes (kind, namespace, name, epoch);

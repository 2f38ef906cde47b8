-- Conditions, gRPC methods and dry runs on what grants; denials; revocations.
--
-- `condition` and `grpc` are JSON texts. What is absent counts as not said, so the release before reads all rows.

ALTER TABLE permissions ADD COLUMN grpc TEXT;
ALTER TABLE permissions ADD COLUMN condition TEXT;
ALTER TABLE permissions ADD COLUMN dry_run BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bindings ADD COLUMN condition TEXT;
ALTER TABLE bindings ADD COLUMN dry_run BIGINT NOT NULL DEFAULT 0;

CREATE TABLE denials (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    who TEXT NOT NULL,
    service TEXT NOT NULL,
    methods TEXT NOT NULL,
    paths TEXT NOT NULL,
    grpc TEXT,
    hosts TEXT NOT NULL,
    condition TEXT,
    not_before TEXT,
    not_after TEXT,
    dry_run BIGINT NOT NULL,
    reason TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE INDEX denials_service ON denials (namespace, service);

CREATE TABLE revocations (
    name TEXT PRIMARY KEY,
    issuer TEXT,
    jti TEXT,
    subject TEXT,
    client TEXT,
    key_id TEXT,
    workload TEXT,
    certificate_serial TEXT,
    issued_before TEXT,
    until TEXT NOT NULL,
    reason TEXT NOT NULL,
    epoch BIGINT NOT NULL
) WITHOUT ROWID;

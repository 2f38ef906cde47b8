-- The policy, and the history of every change to it.
--
-- Lists are JSON texts; times are Unix seconds. `epoch` in a row is the change that last wrote it.

CREATE TABLE epoch (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    n BIGINT NOT NULL
);
INSERT INTO epoch (id, n) VALUES (1, 0);

CREATE TABLE changes (
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    at BIGINT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    before_json TEXT,
    after_json TEXT,
    PRIMARY KEY (epoch, position)
);

CREATE TABLE issuers (
    name TEXT PRIMARY KEY,
    issuer TEXT NOT NULL UNIQUE,
    jwks_url TEXT,
    jwks TEXT,
    algorithms TEXT NOT NULL,
    audiences TEXT NOT NULL,
    typ TEXT NOT NULL,
    token_places TEXT NOT NULL,
    leeway_seconds BIGINT NOT NULL,
    max_lifetime_seconds BIGINT,
    claims TEXT NOT NULL,
    epoch BIGINT NOT NULL
);

-- Key sets as fetched from `jwks_url`: shared by replicas, and there after a restart.
CREATE TABLE issuer_keys (
    issuer TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    jwks TEXT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);

CREATE TABLE enforcers (
    name TEXT PRIMARY KEY,
    spiffe_id TEXT UNIQUE,
    point TEXT NOT NULL,
    services TEXT NOT NULL,
    sources TEXT NOT NULL,
    epoch BIGINT NOT NULL
);

CREATE TABLE services (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    hosts TEXT NOT NULL,
    spiffe_id TEXT,
    callers TEXT NOT NULL,
    issuers TEXT NOT NULL,
    audiences TEXT NOT NULL,
    mode TEXT NOT NULL,
    upstream TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE roles (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    includes TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE permissions (
    namespace TEXT NOT NULL,
    role TEXT NOT NULL,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    service TEXT NOT NULL,
    methods TEXT NOT NULL,
    paths TEXT NOT NULL,
    hosts TEXT NOT NULL,
    scopes TEXT NOT NULL,
    PRIMARY KEY (namespace, role, position),
    UNIQUE (namespace, role, name),
    FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name) ON DELETE CASCADE
);

CREATE TABLE bindings (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    who TEXT NOT NULL,
    not_before TEXT,
    not_after TEXT,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- Opaque tokens of administrators, by hash.
CREATE TABLE admin_credentials (
    name TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);

-- The one-use token that can create the first administrator, by hash.
CREATE TABLE bootstrap_token (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    token_hash TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

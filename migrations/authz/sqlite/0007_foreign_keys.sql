-- What a permission and a binding name must exist. The service checks that before it writes; this catches what it would
-- have missed.
--
-- Foreign keys cannot be added to a table that is there, so both tables are made again. A row that points nowhere
-- grants nothing and is left behind; `changes` still has it.

CREATE TABLE permissions_checked (
    namespace TEXT NOT NULL,
    role TEXT NOT NULL,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    service TEXT NOT NULL,
    methods TEXT NOT NULL,
    paths TEXT NOT NULL,
    hosts TEXT NOT NULL,
    scopes TEXT NOT NULL,
    grpc TEXT,
    condition TEXT,
    dry_run BIGINT NOT NULL DEFAULT 0,
    -- `*` names every service and none in particular.
    of_service TEXT GENERATED ALWAYS AS (nullif(service, '*')) STORED,
    PRIMARY KEY (namespace, role, position),
    UNIQUE (namespace, role, name),
    FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name) ON DELETE CASCADE,
    FOREIGN KEY (namespace, of_service) REFERENCES services (namespace, name) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
INSERT INTO permissions_checked
    (namespace, role, position, name, service, methods, paths, hosts, scopes, grpc, condition, dry_run)
    SELECT namespace, role, position, name, service, methods, paths, hosts, scopes, grpc, condition, dry_run
    FROM permissions AS p
    WHERE service = '*'
        OR EXISTS (SELECT 1 FROM services AS s WHERE s.namespace = p.namespace AND s.name = p.service);
DROP TABLE permissions;
ALTER TABLE permissions_checked RENAME TO permissions;
CREATE INDEX permissions_of_service ON permissions (namespace, of_service);

CREATE TABLE bindings_checked (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    who TEXT NOT NULL,
    not_before TEXT,
    not_after TEXT,
    condition TEXT,
    dry_run BIGINT NOT NULL DEFAULT 0,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
INSERT INTO bindings_checked (namespace, name, role, who, not_before, not_after, condition, dry_run, epoch)
    SELECT namespace, name, role, who, not_before, not_after, condition, dry_run, epoch FROM bindings AS b
    WHERE EXISTS (SELECT 1 FROM roles AS r WHERE r.namespace = b.namespace AND r.name = b.role);
DROP TABLE bindings;
ALTER TABLE bindings_checked RENAME TO bindings;
CREATE INDEX bindings_role ON bindings (namespace, role);

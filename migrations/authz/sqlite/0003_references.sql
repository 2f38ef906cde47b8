-- What refers to what, so that a write can be checked by looking at what it touches, and so that the database
-- itself refuses what the check would have let through by mistake.
--
-- `role_includes` and `service_hosts` repeat what stands in the lists of their rows. Triggers keep them so, whichever
-- release writes; a list that cannot be read is for the reader to complain about. References are looked at when a
-- transaction commits, since one write may replace both ends.

CREATE TABLE role_includes (
    namespace TEXT NOT NULL,
    role TEXT NOT NULL,
    included TEXT NOT NULL,
    PRIMARY KEY (namespace, role, included),
    FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name) ON DELETE CASCADE,
    FOREIGN KEY (namespace, included) REFERENCES roles (namespace, name) DEFERRABLE INITIALLY DEFERRED
) WITHOUT ROWID;
CREATE INDEX role_includes_included ON role_includes (namespace, included);
INSERT OR IGNORE INTO role_includes
    SELECT roles.namespace, roles.name, each.value FROM roles, json_each(iif(json_valid(roles.includes), roles.includes, '[]')) AS each
    WHERE EXISTS (SELECT 1 FROM roles AS other WHERE other.namespace = roles.namespace AND other.name = each.value);
CREATE TRIGGER roles_inserted AFTER INSERT ON roles BEGIN
    INSERT OR IGNORE INTO role_includes SELECT NEW.namespace, NEW.name, value FROM json_each(iif(json_valid(NEW.includes), NEW.includes, '[]'));
END;
CREATE TRIGGER roles_updated AFTER UPDATE OF includes ON roles BEGIN
    DELETE FROM role_includes WHERE namespace = NEW.namespace AND role = NEW.name;
    INSERT OR IGNORE INTO role_includes SELECT NEW.namespace, NEW.name, value FROM json_each(iif(json_valid(NEW.includes), NEW.includes, '[]'));
END;

CREATE TABLE service_hosts (
    host TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    service TEXT NOT NULL,
    FOREIGN KEY (namespace, service) REFERENCES services (namespace, name) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX service_hosts_service ON service_hosts (namespace, service);
INSERT OR IGNORE INTO service_hosts
    SELECT lower(each.value), services.namespace, services.name FROM services, json_each(iif(json_valid(services.hosts), services.hosts, '[]')) AS each;
CREATE TRIGGER services_inserted AFTER INSERT ON services BEGIN
    INSERT INTO service_hosts SELECT lower(value), NEW.namespace, NEW.name FROM json_each(iif(json_valid(NEW.hosts), NEW.hosts, '[]'));
END;
CREATE TRIGGER services_updated AFTER UPDATE OF hosts ON services BEGIN
    DELETE FROM service_hosts WHERE namespace = NEW.namespace AND service = NEW.name;
    INSERT INTO service_hosts SELECT lower(value), NEW.namespace, NEW.name FROM json_each(iif(json_valid(NEW.hosts), NEW.hosts, '[]'));
END;
CREATE INDEX services_spiffe_id ON services (spiffe_id);

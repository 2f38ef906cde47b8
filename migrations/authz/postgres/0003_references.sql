-- What refers to what, so that a write can be checked by looking at what it touches, and so that the database
-- itself refuses what the check would have let through by mistake.
--
-- `role_includes` and `service_hosts` repeat what stands in the lists of their rows. Triggers keep them so, whichever
-- release writes; a list that cannot be read is for the reader to complain about. References are looked at when a
-- transaction commits, since one write may replace both ends.

CREATE FUNCTION list_of_texts(list TEXT) RETURNS SETOF TEXT LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN QUERY SELECT jsonb_array_elements_text(list::jsonb);
EXCEPTION WHEN data_exception THEN
    RETURN;
END $$;

CREATE TABLE role_includes (
    namespace TEXT NOT NULL,
    role TEXT NOT NULL,
    included TEXT NOT NULL,
    PRIMARY KEY (namespace, role, included),
    FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name) ON DELETE CASCADE,
    FOREIGN KEY (namespace, included) REFERENCES roles (namespace, name) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX role_includes_included ON role_includes (namespace, included);
INSERT INTO role_includes
    SELECT roles.namespace, roles.name, each.value
    FROM roles, list_of_texts(roles.includes) AS each (value)
    WHERE EXISTS (SELECT 1 FROM roles AS other WHERE other.namespace = roles.namespace AND other.name = each.value)
    ON CONFLICT DO NOTHING;
CREATE FUNCTION roles_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM role_includes WHERE namespace = NEW.namespace AND role = NEW.name;
    INSERT INTO role_includes
        SELECT NEW.namespace, NEW.name, value FROM list_of_texts(NEW.includes) AS each (value)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER roles_written AFTER INSERT OR UPDATE OF includes ON roles
    FOR EACH ROW EXECUTE FUNCTION roles_written();

CREATE TABLE service_hosts (
    host TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    service TEXT NOT NULL,
    FOREIGN KEY (namespace, service) REFERENCES services (namespace, name) ON DELETE CASCADE
);
CREATE INDEX service_hosts_service ON service_hosts (namespace, service);
INSERT INTO service_hosts
    SELECT lower(each.value), services.namespace, services.name
    FROM services, list_of_texts(services.hosts) AS each (value)
    ON CONFLICT DO NOTHING;
CREATE FUNCTION services_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM service_hosts WHERE namespace = NEW.namespace AND service = NEW.name;
    INSERT INTO service_hosts
        SELECT lower(value), NEW.namespace, NEW.name FROM list_of_texts(NEW.hosts) AS each (value);
    RETURN NULL;
END $$;
CREATE TRIGGER services_written AFTER INSERT OR UPDATE OF hosts ON services
    FOR EACH ROW EXECUTE FUNCTION services_written();
CREATE INDEX services_spiffe_id ON services (spiffe_id);

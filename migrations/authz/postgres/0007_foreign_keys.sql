-- What a permission and a binding name must exist. The service checks that before it writes; this catches what
-- it would have missed.
--
-- A grant that points nowhere grants nothing and is removed; `changes` still has it.

DELETE FROM permissions AS p
    WHERE service <> '*'
        AND NOT EXISTS (SELECT 1 FROM services AS s WHERE s.namespace = p.namespace AND s.name = p.service);
-- `*` names every service and none in particular.
ALTER TABLE permissions ADD COLUMN of_service TEXT GENERATED ALWAYS AS (NULLIF(service, '*')) STORED;
ALTER TABLE permissions ADD FOREIGN KEY (namespace, of_service) REFERENCES services (namespace, name)
    DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX permissions_of_service ON permissions (namespace, of_service);

DELETE FROM bindings AS b
    WHERE NOT EXISTS (SELECT 1 FROM roles AS r WHERE r.namespace = b.namespace AND r.name = b.role);
ALTER TABLE bindings ADD FOREIGN KEY (namespace, role) REFERENCES roles (namespace, name)
    DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX bindings_role ON bindings (namespace, role);

-- Claims that an upstream reads from query parameters.
ALTER TABLE issuers ADD COLUMN claim_parameters TEXT NOT NULL DEFAULT '[]';

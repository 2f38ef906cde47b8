-- Where an issuer's keys come from, and what becomes of its tokens and claims on the way to the upstream.

ALTER TABLE issuers ADD COLUMN discovery BIGINT NOT NULL DEFAULT 0;
ALTER TABLE issuers ADD COLUMN pem TEXT;
-- The name of a secret. The secret itself is never in the database.
ALTER TABLE issuers ADD COLUMN shared_secret TEXT;
ALTER TABLE issuers ADD COLUMN strip BIGINT NOT NULL DEFAULT 0;
ALTER TABLE issuers ADD COLUMN claim_headers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE issuers ADD COLUMN metadata_claims TEXT NOT NULL DEFAULT '[]';

-- Where a browser without a token is sent.
ALTER TABLE services ADD COLUMN login TEXT;

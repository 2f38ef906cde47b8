-- By whose doing a workload has its certificate: who made the join token, or who signed from the data folder. Renewals
-- inherit it.
ALTER TABLE certificates ADD COLUMN issued_by TEXT NOT NULL DEFAULT '';

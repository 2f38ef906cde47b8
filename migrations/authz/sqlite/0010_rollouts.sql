-- Rollouts of canaries: one record a plan, which proxies report to and follow. It is no policy: the epoch stays.
--
-- `plan` is the hash of all that the plan says; `record` is JSON. Times are Unix milliseconds. `adopted_at`: since when
-- proxies follow this plan without a long pause; of several plans of one name the last adopted is the one in force.
CREATE TABLE rollouts (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    record TEXT NOT NULL,
    generation BIGINT NOT NULL,
    version BIGINT NOT NULL,
    adopted_at BIGINT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, name, plan)
) WITHOUT ROWID;
CREATE INDEX rollouts_reported_at ON rollouts (reported_at);

-- The last window of each proxy that was counted, so that none is counted twice.
CREATE TABLE rollout_reporters (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    proxy TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (namespace, name, plan, proxy),
    FOREIGN KEY (namespace, name, plan) REFERENCES rollouts (namespace, name, plan) ON DELETE CASCADE
) WITHOUT ROWID;

-- What happened to a rollout, by itself or by somebody's doing.
CREATE TABLE rollout_events (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    generation BIGINT NOT NULL,
    at BIGINT NOT NULL,
    author TEXT NOT NULL,
    action TEXT NOT NULL,
    was TEXT NOT NULL,
    became TEXT NOT NULL,
    weight BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (namespace, name, plan, generation),
    FOREIGN KEY (namespace, name, plan) REFERENCES rollouts (namespace, name, plan) ON DELETE CASCADE
) WITHOUT ROWID;

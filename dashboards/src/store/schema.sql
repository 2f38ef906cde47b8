-- One file a day. `wal` holds what is acknowledged and not yet in a block; blocks and the trimming of `wal` are one transaction.
CREATE TABLE IF NOT EXISTS wal (
    seq      INTEGER PRIMARY KEY, -- number of the request's first record
    signal   INTEGER NOT NULL,    -- 0 logs, 1 traces, 2 metrics
    n        INTEGER NOT NULL,    -- records in it
    received INTEGER NOT NULL,    -- unix nanoseconds
    request  BLOB NOT NULL        -- OTLP request, credentials removed, zstd
);
CREATE TABLE IF NOT EXISTS block (
    id     INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: columns of a replaced block outlive it for a moment
    signal INTEGER NOT NULL,      -- record::Kind
    tmin   INTEGER NOT NULL,
    tmax   INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    smax   INTEGER NOT NULL,      -- largest record number in it
    bloom  BLOB NOT NULL,
    zone   TEXT NOT NULL
);
-- One row a column, so that reading one never walks the pages of another.
CREATE TABLE IF NOT EXISTS col (
    block INTEGER NOT NULL,
    c     TEXT NOT NULL,
    enc   INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (block, c)
);
-- Ten-second sums, in fragments that are added up when read: one for each sealing.
CREATE TABLE IF NOT EXISTS rollup (
    t     INTEGER NOT NULL,       -- unix time / 10 s
    block INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (t, block)
) WITHOUT ROWID;
PRAGMA user_version = 1;

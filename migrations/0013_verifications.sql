-- What `recorder verify` found, so that a recorder can tell its metrics. Not part of the record.

CREATE TABLE verifications (
    finished_at timestamptz PRIMARY KEY,
    since       date,
    events      bigint      NOT NULL CHECK (events >= 0),
    rows        jsonb       NOT NULL,
    differences bigint      NOT NULL CHECK (differences >= 0)
);

COMMENT ON TABLE  verifications             IS 'The latest comparisons of the tables with the log, by `recorder verify`.';
COMMENT ON COLUMN verifications.finished_at IS 'When it was finished.';
COMMENT ON COLUMN verifications.since       IS 'From which UTC day on. Null: all of the log.';
COMMENT ON COLUMN verifications.events      IS 'How many events of the log were read.';
COMMENT ON COLUMN verifications.rows        IS 'How many rows of each table were compared: an object of numbers by the table''s name.';
COMMENT ON COLUMN verifications.differences IS 'How many rows were not what the log says.';

-- Where an event goes that can never be projected. Not part of the record, but nothing of the record is ever thrown away.

CREATE TABLE quarantine (
    quarantine_id   uuid        PRIMARY KEY,
    subject         text        NOT NULL,
    headers         jsonb       NOT NULL,
    payload         bytea       NOT NULL,
    reason          text        NOT NULL CHECK (reason IN ('undecodable', 'refused_by_database')),
    detail          text        NOT NULL,
    stream_sequence bigint      NOT NULL,
    published_at    timestamptz NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE  quarantine                 IS 'Events that could not be projected, kept whole, so that they can be tried again once the reason is gone.';
COMMENT ON COLUMN quarantine.quarantine_id   IS 'A hash of subject, headers and payload: the same event is here once, however often it is delivered.';
COMMENT ON COLUMN quarantine.subject         IS 'The subject it was published to.';
COMMENT ON COLUMN quarantine.headers         IS 'Its headers: an object of arrays of texts.';
COMMENT ON COLUMN quarantine.payload         IS 'Its payload, as it came.';
COMMENT ON COLUMN quarantine.reason          IS 'undecodable: not an event that this recorder can read; refused_by_database: PostgreSQL refused its rows for what is in them.';
COMMENT ON COLUMN quarantine.detail          IS 'The error in words, without the text of any chat.';
COMMENT ON COLUMN quarantine.stream_sequence IS 'Where in the stream it was when first seen. For people only: sequences are reused after a loss.';
COMMENT ON COLUMN quarantine.published_at    IS 'When the broker stored it.';
COMMENT ON COLUMN quarantine.quarantined_at  IS 'When a recorder put it here.';

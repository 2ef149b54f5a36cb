-- What a recorder remembers of the broker, to notice one that went back in time. Not part of the record.

CREATE TABLE stream_marks (
    stream            text    PRIMARY KEY,
    stream_created_ns bigint  NOT NULL,
    sequence          bigint  NOT NULL CHECK (sequence >= 0),
    taken_in_ns       bigint,
    is_healing        boolean NOT NULL
);

COMMENT ON TABLE  stream_marks                   IS 'How far the recorders'' consumer had come, and which event stood there: if another one does, the broker lost the end of its stream and used the sequences again.';
COMMENT ON COLUMN stream_marks.stream            IS 'The stream.';
COMMENT ON COLUMN stream_marks.stream_created_ns IS 'When the stream was made, in nanoseconds since 1970: one that was made again begins anew.';
COMMENT ON COLUMN stream_marks.sequence          IS 'Up to where every event had been acknowledged.';
COMMENT ON COLUMN stream_marks.taken_in_ns       IS 'When the broker had taken in the event there, in nanoseconds since 1970. Null: there was none.';
COMMENT ON COLUMN stream_marks.is_healing        IS 'Whether a recorder is making the consumer anew, or died while it did.';

-- Published price lists, and spans of time whose costs were computed again. Works with the code before it, which knows neither and
-- prices every call with its own list. Publish nothing while recorders of an earlier version run.

CREATE TABLE price_lists (
    change_id      uuid        NOT NULL PRIMARY KEY,
    layer          text        NOT NULL,
    in_force_from  timestamptz NOT NULL,
    in_force_until timestamptz,
    published_at   timestamptz NOT NULL,
    published_by   text        NOT NULL,
    sha256         text        NOT NULL,
    list           text        NOT NULL
);

CREATE INDEX price_lists_by_hash ON price_lists (sha256);

COMMENT ON TABLE  price_lists IS 'The published price lists, in layers. Filled by the events PricesPublished.';
COMMENT ON INDEX  price_lists_by_hash IS 'The content of a list that rows name.';
COMMENT ON COLUMN price_lists.change_id      IS 'The publication, a UUIDv7. Of two lists of a layer that are in force at a time, the one with the greater id applies.';
COMMENT ON COLUMN price_lists.layer          IS 'base for a complete list; any other name for an overlay, which is asked before the complete list.';
COMMENT ON COLUMN price_lists.in_force_from  IS 'The time from which the list is in force. Calls that started before the publication keep their costs all the same, until they are repriced.';
COMMENT ON COLUMN price_lists.in_force_until IS 'The time from which the list is not in force any more. Null: no end.';
COMMENT ON COLUMN price_lists.published_at   IS 'The time of the publication.';
COMMENT ON COLUMN price_lists.published_by   IS 'The administrator who published the list; cli for the command line.';
COMMENT ON COLUMN price_lists.sha256         IS 'The SHA-256 of the list. chats.price_version has the first 16 digits.';
COMMENT ON COLUMN price_lists.list           IS 'The list: a JSON array of providers in the format of genai-prices.';

CREATE TABLE repricings (
    change_id   uuid        NOT NULL PRIMARY KEY,
    since       timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    repriced_at timestamptz NOT NULL,
    repriced_by text        NOT NULL
);

COMMENT ON TABLE  repricings IS 'Spans of time whose costs were computed again. Filled by the events CostsRepriced.';
COMMENT ON COLUMN repricings.change_id   IS 'The change, a UUIDv7. The lists with lesser ids apply; of two changes of a call, the one with the greater id counts.';
COMMENT ON COLUMN repricings.since       IS 'The beginning of the span: calls that started at this time or later.';
COMMENT ON COLUMN repricings.until       IS 'The end of the span: calls that started before this time, and before repriced_at.';
COMMENT ON COLUMN repricings.repriced_at IS 'The time of the change.';
COMMENT ON COLUMN repricings.repriced_by IS 'The administrator who asked for it; cli for the command line.';

CREATE TABLE pending_repricings (
    change_id uuid        NOT NULL PRIMARY KEY,
    since     timestamptz NOT NULL,
    until     timestamptz
);

COMMENT ON TABLE  pending_repricings IS 'Publications and repricings whose calls are being priced anew. Not part of the record: a recorder removes each row before it acknowledges the event.';
COMMENT ON COLUMN pending_repricings.change_id IS 'The publication or the repricing.';
COMMENT ON COLUMN pending_repricings.since     IS 'The beginning of the span of the calls.';
COMMENT ON COLUMN pending_repricings.until     IS 'The end of the span, not included. Null: no end.';

-- Calls of a span of time, for pricing them anew. A summary of each range of blocks, so that a new call costs nothing.
CREATE INDEX chats_by_time ON chats USING brin (started_at) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON INDEX chats_by_time IS 'The calls of all users in a span of time, for pricing them anew.';

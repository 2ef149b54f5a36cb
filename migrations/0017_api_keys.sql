-- API keys, the key of each call, and usage by key. Works with the code before it: what is new has defaults, and without keys there is
-- nothing to write here.

ALTER TABLE chats
    ADD COLUMN key_id uuid,
    ADD COLUMN project_id uuid;

-- Calls with an API key alone: usage_slots counts all calls, so a call with a session token costs no second row.
CREATE TABLE key_slots (
    user_id                     text        NOT NULL,
    slot_at                     timestamptz NOT NULL,
    model                       text        NOT NULL CHECK (octet_length(model) <= 256),
    key_id                      uuid        NOT NULL,
    project_id                  uuid        NOT NULL,
    api_calls                   bigint NOT NULL,
    successful_calls            bigint NOT NULL,
    failed_calls                bigint NOT NULL,
    prompt_tokens               bigint NOT NULL,
    completion_tokens           bigint NOT NULL,
    total_tokens                bigint NOT NULL,
    estimated_prompt_tokens     bigint NOT NULL,
    estimated_completion_tokens bigint NOT NULL,
    estimated_total_tokens      bigint NOT NULL,
    messages_created            bigint NOT NULL,
    conversations_created       bigint NOT NULL,
    PRIMARY KEY (user_id, slot_at, model, key_id, project_id),
    CONSTRAINT slots_are_quarters CHECK (date_bin('15 minutes', slot_at, '2000-01-01 00:00+00') = slot_at),
    CONSTRAINT every_call_has_one_outcome CHECK (api_calls = successful_calls + failed_calls)
) WITH (fillfactor = 50);

CREATE INDEX key_slots_by_time ON key_slots (slot_at);
CREATE INDEX key_slots_by_key ON key_slots (key_id, slot_at);

-- Filled by the events KeyIssued, KeyChanged and KeyRevoked, in any order of arrival: so the facts of each event can be missing.
CREATE TABLE api_keys (
    key_id      uuid        NOT NULL PRIMARY KEY,
    user_id     text        NOT NULL,
    project_id  uuid,
    issued_at   timestamptz,
    issued_by   text,
    change_id   uuid,
    changed_at  timestamptz,
    changed_by  text,
    name        text,
    models      jsonb,
    operations  jsonb,
    expires_at  timestamptz,
    revoked_at  timestamptz,
    revoked_by  text,
    CONSTRAINT issue_is_whole CHECK (num_nulls(issued_at, issued_by) IN (0, 2)),
    CONSTRAINT settings_are_whole CHECK (num_nulls(change_id, changed_at, changed_by, name, models, operations) IN (0, 6)),
    CONSTRAINT expiry_is_a_setting CHECK (expires_at IS NULL OR change_id IS NOT NULL),
    CONSTRAINT revocation_is_whole CHECK (num_nulls(revoked_at, revoked_by) IN (0, 2))
);

CREATE INDEX api_keys_by_user ON api_keys (user_id, key_id);

COMMENT ON COLUMN chats.key_id     IS 'The API key with which the caller authenticated. Null: a session token.';
COMMENT ON COLUMN chats.project_id IS 'The project of the API key. Null: none.';
COMMENT ON TABLE  key_slots IS 'Usage of calls with an API key, by user, quarter of an hour, model, key and project. usage_slots counts all calls: the usage with session tokens is the difference.';
COMMENT ON INDEX  key_slots_by_time IS 'The usage of all users in a span of time.';
COMMENT ON INDEX  key_slots_by_key  IS 'The last use of a key.';
COMMENT ON COLUMN key_slots.user_id                     IS 'The user.';
COMMENT ON COLUMN key_slots.slot_at                     IS 'The beginning of the quarter of an hour in which the calls started.';
COMMENT ON COLUMN key_slots.model                       IS 'The model that the client asked for, at most 256 bytes of its name.';
COMMENT ON COLUMN key_slots.key_id                      IS 'The API key of the calls.';
COMMENT ON COLUMN key_slots.project_id                  IS 'The project of the key; 00000000-0000-0000-0000-000000000000 for none.';
COMMENT ON COLUMN key_slots.api_calls                   IS 'Calls that have ended: successful and failed ones.';
COMMENT ON COLUMN key_slots.successful_calls            IS 'Calls that completed.';
COMMENT ON COLUMN key_slots.failed_calls                IS 'Calls that failed or were orphaned.';
COMMENT ON COLUMN key_slots.prompt_tokens               IS 'Input tokens as reported by providers.';
COMMENT ON COLUMN key_slots.completion_tokens           IS 'Output tokens as reported by providers.';
COMMENT ON COLUMN key_slots.total_tokens                IS 'All tokens as reported by providers.';
COMMENT ON COLUMN key_slots.estimated_prompt_tokens     IS 'Input tokens of calls without a report, estimated. Never added to the reported ones.';
COMMENT ON COLUMN key_slots.estimated_completion_tokens IS 'Output tokens of calls without a report, estimated.';
COMMENT ON COLUMN key_slots.estimated_total_tokens      IS 'All tokens of calls without a report, estimated.';
COMMENT ON COLUMN key_slots.messages_created            IS 'Messages of these calls, of both sides.';
COMMENT ON COLUMN key_slots.conversations_created       IS 'Always 0: the opening of a conversation counts for the user alone. The column makes the sums of the tables comparable.';
COMMENT ON TABLE  api_keys IS 'API keys: their settings and their end. No secret is stored: a key proves itself by a signature.';
COMMENT ON INDEX  api_keys_by_user IS 'The keys of a user.';
COMMENT ON COLUMN api_keys.key_id     IS 'The id, a UUIDv7.';
COMMENT ON COLUMN api_keys.user_id    IS 'The owner: calls with the key are calls of this user.';
COMMENT ON COLUMN api_keys.project_id IS 'The project to which the use of the key counts. Null: none.';
COMMENT ON COLUMN api_keys.issued_at  IS 'The time of issue. Null: the event KeyIssued has not been recorded yet.';
COMMENT ON COLUMN api_keys.issued_by  IS 'The user who had the key issued; cli for the command line.';
COMMENT ON COLUMN api_keys.change_id  IS 'The change that the settings come from; the key itself for the settings at issue. Of two changes, the greater id applies.';
COMMENT ON COLUMN api_keys.changed_at IS 'The time of that change.';
COMMENT ON COLUMN api_keys.changed_by IS 'The user who made that change; cli for the command line.';
COMMENT ON COLUMN api_keys.name       IS 'The name, for people.';
COMMENT ON COLUMN api_keys.models     IS 'The models that the key may use: an array of patterns. Empty: all models.';
COMMENT ON COLUMN api_keys.operations IS 'The kinds of calls that the key may make: an array of words as in chats.operation. Empty: all kinds.';
COMMENT ON COLUMN api_keys.expires_at IS 'The time from which the key is refused. Null: never.';
COMMENT ON COLUMN api_keys.revoked_at IS 'The time since which the key is refused for ever. Null: not revoked.';
COMMENT ON COLUMN api_keys.revoked_by IS 'The user who revoked the key; cli for the command line.';

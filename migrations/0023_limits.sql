-- Limits of scopes. Works with the code before it, which does not know the table.

CREATE TABLE limits (
    scope               text COLLATE "C" NOT NULL PRIMARY KEY,
    change_id           uuid        NOT NULL,
    changed_at          timestamptz NOT NULL,
    changed_by          text        NOT NULL,
    requests_per_minute bigint CHECK (requests_per_minute >= 0),
    tokens_per_minute   bigint CHECK (tokens_per_minute >= 0),
    concurrent_chats    bigint CHECK (concurrent_chats >= 0),
    CONSTRAINT scope_is_known CHECK (scope IN ('deployment', 'everyone') OR scope ~ '^(user|project|key|model):.')
);

COMMENT ON TABLE  limits IS 'The limits of scopes: how much a user, project, key, model or the whole deployment may use. Filled by the events LimitsChanged.';
COMMENT ON COLUMN limits.scope               IS 'The calls that are counted together: deployment, everyone (the default of each user), user:ID, project:ID, key:ID or model:NAME.';
COMMENT ON COLUMN limits.change_id           IS 'The change that the limits come from, a UUIDv7. Of two changes, the greater id applies, as a whole.';
COMMENT ON COLUMN limits.changed_at          IS 'The time of that change.';
COMMENT ON COLUMN limits.changed_by          IS 'The administrator who made that change; cli for the command line.';
COMMENT ON COLUMN limits.requests_per_minute IS 'The maximum number of calls that begin in a minute of the clock (UTC). Null: no limit.';
COMMENT ON COLUMN limits.tokens_per_minute   IS 'The maximum number of tokens, of prompts and answers together, in a minute of the clock (UTC). Null: no limit.';
COMMENT ON COLUMN limits.concurrent_chats    IS 'The maximum number of calls that run at the same time. Null: no limit.';

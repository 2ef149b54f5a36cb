-- Users of an external identity provider who are disabled here. Works with the code before it, which does not know the table.

CREATE TABLE disabled_external_users (
    user_id     text COLLATE "C" NOT NULL PRIMARY KEY CHECK (strpos(user_id, '|') > 0),
    disabled_at timestamptz NOT NULL
);

COMMENT ON TABLE  disabled_external_users IS 'Users of an external identity provider who are disabled here. They have no account in users. Not part of the record.';
COMMENT ON COLUMN disabled_external_users.user_id     IS 'The id: the host of the provider, "|", and the provider''s own id.';
COMMENT ON COLUMN disabled_external_users.disabled_at IS 'Since when the user is disabled.';

-- Accounts: who may use this deployment. Not part of the record: no event is projected into these two tables, and no
-- projected table refers to them, because the users of an external identity provider need no row here.

CREATE TABLE users (
    user_id       text        PRIMARY KEY CHECK (octet_length(user_id) BETWEEN 1 AND 255),
    name          text        NOT NULL UNIQUE CHECK (char_length(name) BETWEEN 1 AND 255),
    role          text        CHECK (role IN ('admin')),
    password_hash text,
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz
);

COMMENT ON TABLE  users               IS 'The accounts that this deployment manages itself.';
COMMENT ON COLUMN users.user_id       IS 'The subject of the user''s tokens, as it appears in events. A UUIDv7 unless chosen otherwise.';
COMMENT ON COLUMN users.name          IS 'The login name.';
COMMENT ON COLUMN users.role          IS 'What the user may do beyond their own record: admin reads everyone''s. Null: nothing.';
COMMENT ON COLUMN users.password_hash IS 'The password''s hash in PHC string format. Null: no login with a password.';
COMMENT ON COLUMN users.created_at    IS 'When the account was made.';
COMMENT ON COLUMN users.disabled_at   IS 'Since when the account gets no new tokens. Null: it does.';

CREATE TABLE invite_codes (
    code_hash  bytea       PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    role       text        CHECK (role IN ('admin')),
    created_by text        REFERENCES users (user_id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_by    text        REFERENCES users (user_id),
    used_at    timestamptz,
    CHECK ((used_by IS NULL) = (used_at IS NULL))
);

COMMENT ON TABLE  invite_codes            IS 'Codes with which people make themselves an account, once each.';
COMMENT ON COLUMN invite_codes.code_hash  IS 'SHA-256 of the code: the code itself is shown once and kept nowhere.';
COMMENT ON COLUMN invite_codes.role       IS 'The role of the account to be made.';
COMMENT ON COLUMN invite_codes.created_by IS 'Who made the code. Null: an operator, on the command line.';
COMMENT ON COLUMN invite_codes.created_at IS 'When the code was made.';
COMMENT ON COLUMN invite_codes.expires_at IS 'Until when the code can be used.';
COMMENT ON COLUMN invite_codes.used_by    IS 'The account that was made with it. Null: none yet.';
COMMENT ON COLUMN invite_codes.used_at    IS 'When it was used.';

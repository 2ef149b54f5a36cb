-- Accounts, continued: invite codes that several people can use, sessions, and the count of wrong guesses. Nothing has
-- written or read invite_codes before this, so what it had for single use goes at once.

ALTER TABLE invite_codes
    DROP COLUMN used_by,
    DROP COLUMN used_at,
    ADD COLUMN invite_id  uuid        NOT NULL UNIQUE,
    ADD COLUMN note       text        CHECK (char_length(note) <= 200),
    ADD COLUMN max_uses   integer     NOT NULL CHECK (max_uses BETWEEN 1 AND 10000),
    ADD COLUMN uses       integer     NOT NULL DEFAULT 0,
    ADD COLUMN revoked_at timestamptz,
    ADD CONSTRAINT used_within_bounds CHECK (uses BETWEEN 0 AND max_uses);

COMMENT ON TABLE  invite_codes            IS 'Codes with which people make themselves an account, each as often as it says.';
COMMENT ON COLUMN invite_codes.invite_id  IS 'Its name in lists: a UUIDv7. The code itself cannot be found out from it.';
COMMENT ON COLUMN invite_codes.note       IS 'What it is for, in the words of who made it.';
COMMENT ON COLUMN invite_codes.max_uses   IS 'How many accounts may be made with it.';
COMMENT ON COLUMN invite_codes.uses       IS 'How many have been.';
COMMENT ON COLUMN invite_codes.revoked_at IS 'Since when it is good for nothing. Null: it is good until it expires or is used up.';

ALTER TABLE users
    ADD COLUMN invite_id uuid REFERENCES invite_codes (invite_id);

COMMENT ON COLUMN users.invite_id IS 'The invite that the account was made with: who made it invited this user. Null: an operator made the account.';

CREATE TABLE sessions (
    session_id uuid        PRIMARY KEY,
    user_id    text        NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    address    text        NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    ended_by   text        CHECK (ended_by IN ('logout', 'reuse', 'password', 'disabled')),
    CONSTRAINT ended_for_a_reason CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);

CREATE INDEX sessions_by_user ON sessions (user_id, created_at DESC);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

COMMENT ON TABLE  sessions            IS 'Who is logged in where. Access tokens are not here: services check them with public keys alone.';
COMMENT ON INDEX  sessions_by_user    IS 'A user''s sessions: to end them, and to know an address again.';
COMMENT ON INDEX  sessions_by_expiry  IS 'What can be deleted.';
COMMENT ON COLUMN sessions.session_id IS 'The session: a UUIDv7, as in its access tokens.';
COMMENT ON COLUMN sessions.user_id    IS 'Whose it is.';
COMMENT ON COLUMN sessions.address    IS 'The address of the login: an IPv4 address, or the /64 of an IPv6 one.';
COMMENT ON COLUMN sessions.created_at IS 'When the login was.';
COMMENT ON COLUMN sessions.expires_at IS 'Until when it can be refreshed.';
COMMENT ON COLUMN sessions.ended_at   IS 'When it was ended before its time. Null: it was not.';
COMMENT ON COLUMN sessions.ended_by   IS 'logout; reuse: a refresh token came a second time, so two parties had it; password: it was changed; disabled: the account was.';

CREATE TABLE refresh_tokens (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    session_id uuid        NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

COMMENT ON TABLE  refresh_tokens            IS 'The refresh tokens of sessions, the used ones too: that is how a second use is noticed.';
COMMENT ON INDEX  refresh_tokens_by_session IS 'What goes with a session.';
COMMENT ON COLUMN refresh_tokens.token_hash IS 'SHA-256 of the token: the token itself is kept nowhere.';
COMMENT ON COLUMN refresh_tokens.session_id IS 'Its session.';
COMMENT ON COLUMN refresh_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN refresh_tokens.used_at    IS 'When it was used, which it may be once. Null: not yet.';

CREATE TABLE guesses (
    scope    text        NOT NULL CHECK (scope IN ('pair', 'address', 'account')),
    key_hash bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    count    integer     NOT NULL CHECK (count > 0),
    since    timestamptz NOT NULL,
    PRIMARY KEY (scope, key_hash)
);

CREATE INDEX guesses_by_age ON guesses (since);

COMMENT ON TABLE  guesses          IS 'Tries at passwords and invite codes that did not succeed, counted over windows of time, for all processes together.';
COMMENT ON INDEX  guesses_by_age   IS 'What can be deleted.';
COMMENT ON COLUMN guesses.scope    IS 'pair: one account from one address; address: any account from it; account: from any address not known to it.';
COMMENT ON COLUMN guesses.key_hash IS 'SHA-256 of the account''s name, the address, or both: whether or not there is such an account.';
COMMENT ON COLUMN guesses.count    IS 'How many.';
COMMENT ON COLUMN guesses.since    IS 'When the first of them was: the window begins there.';

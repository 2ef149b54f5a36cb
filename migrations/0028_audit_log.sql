-- The audit log: acts that concern access to the record. Works with the code before it, which writes no entries; recorders of an earlier
-- version put the events AuditRecorded into quarantine, so upgrade `recorder consume` before `recorder serve`.

CREATE TABLE audit_log (
    audit_id    uuid        NOT NULL PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    actor       text        NOT NULL,
    action      text        NOT NULL,
    target_kind text,
    target_id   text,
    outcome     text        NOT NULL,
    address     text,
    count       bigint      NOT NULL CHECK (count > 0),
    CONSTRAINT whole_target CHECK ((target_kind IS NULL) = (target_id IS NULL))
);

CREATE INDEX audit_log_by_time ON audit_log (recorded_at DESC, audit_id DESC);
CREATE INDEX audit_log_by_actor ON audit_log (actor, recorded_at DESC, audit_id DESC);
CREATE INDEX audit_log_by_action ON audit_log (action, recorded_at DESC, audit_id DESC);
CREATE INDEX audit_log_by_target ON audit_log (target_id, recorded_at DESC, audit_id DESC);

COMMENT ON TABLE  audit_log IS 'Logins, changes of accounts and roles, reads of other people''s chats, and other acts that concern access to the record. Filled by the events AuditRecorded.';
COMMENT ON INDEX  audit_log_by_time   IS 'The latest acts.';
COMMENT ON INDEX  audit_log_by_actor  IS 'The acts of a user.';
COMMENT ON INDEX  audit_log_by_action IS 'The acts of a kind.';
COMMENT ON INDEX  audit_log_by_target IS 'The acts about a thing.';
COMMENT ON COLUMN audit_log.audit_id    IS 'The entry: a UUID.';
COMMENT ON COLUMN audit_log.recorded_at IS 'The time of the act; of several acts, of the last one.';
COMMENT ON COLUMN audit_log.actor       IS 'The user who acted; cli for the command line, anonymous for somebody who has not logged in.';
COMMENT ON COLUMN audit_log.action      IS 'The kind of the act, a word such as login.';
COMMENT ON COLUMN audit_log.target_kind IS 'The kind of the thing that the act is about, a word such as user. Null: no single thing, or an unknown one.';
COMMENT ON COLUMN audit_log.target_id   IS 'The id of the thing.';
COMMENT ON COLUMN audit_log.outcome     IS 'success, failure or throttled.';
COMMENT ON COLUMN audit_log.address     IS 'The address of the client: an IPv4 address, or the /64 of an IPv6 one. Null: the command line, or several addresses.';
COMMENT ON COLUMN audit_log.count       IS 'The number of equal acts that the entry stands for.';

CREATE TABLE audit_windows (
    digest      bytea       NOT NULL PRIMARY KEY CHECK (octet_length(digest) = 32),
    actor       text        NOT NULL,
    action      text        NOT NULL,
    target_kind text,
    target_id   text,
    outcome     text        NOT NULL,
    address     text,
    ends_at     timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    count       bigint      NOT NULL CHECK (count >= 0)
);

CREATE INDEX audit_windows_by_end ON audit_windows (ends_at);
CREATE INDEX audit_windows_anonymous ON audit_windows (actor) WHERE actor = 'anonymous';

COMMENT ON TABLE  audit_windows IS 'Acts of the last minute, so that further equal acts are counted in one entry. Not part of the record.';
COMMENT ON INDEX  audit_windows_by_end    IS 'The windows that have ended.';
COMMENT ON INDEX  audit_windows_anonymous IS 'The number of different failures without a user, which is bounded.';
COMMENT ON COLUMN audit_windows.digest      IS 'The SHA-256 of what equal acts have in common: all columns but the times and the count.';
COMMENT ON COLUMN audit_windows.actor       IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.action      IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.target_kind IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.target_id   IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.outcome     IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.address     IS 'As in audit_log.';
COMMENT ON COLUMN audit_windows.ends_at     IS 'The end of the minute that began with the first act.';
COMMENT ON COLUMN audit_windows.last_at     IS 'The time of the last act.';
COMMENT ON COLUMN audit_windows.count       IS 'The number of acts since the first one, which has an entry of its own.';

CREATE TABLE audit_outbox (
    number      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    audit_id    uuid        NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor       text        NOT NULL,
    action      text        NOT NULL,
    target_kind text,
    target_id   text,
    outcome     text        NOT NULL,
    address     text,
    count       bigint      NOT NULL CHECK (count > 0)
);

COMMENT ON TABLE  audit_outbox IS 'Entries of the audit log until the broker has their events. Not part of the record.';
COMMENT ON COLUMN audit_outbox.number      IS 'The order in which the entries are published.';
COMMENT ON COLUMN audit_outbox.audit_id    IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.recorded_at IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.actor       IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.action      IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.target_kind IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.target_id   IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.outcome     IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.address     IS 'As in audit_log.';
COMMENT ON COLUMN audit_outbox.count       IS 'As in audit_log.';

-- The audit view lists changes of keys, limits and prices, and deletions of conversations, from their own tables.
CREATE INDEX api_keys_by_issue_time ON api_keys (issued_at DESC, key_id DESC) WHERE issued_at IS NOT NULL;
CREATE INDEX api_keys_by_change_time ON api_keys (changed_at DESC, key_id DESC) WHERE changed_at IS NOT NULL;
CREATE INDEX api_keys_by_revocation_time ON api_keys (revoked_at DESC, key_id DESC) WHERE revoked_at IS NOT NULL;
CREATE INDEX limits_by_change_time ON limits (changed_at DESC, change_id DESC);
CREATE INDEX conversations_by_deletion_time ON conversations (deleted_at DESC, conversation_id DESC) WHERE deleted_at IS NOT NULL;

COMMENT ON INDEX api_keys_by_issue_time      IS 'The audit view: keys that were issued.';
COMMENT ON INDEX api_keys_by_change_time     IS 'The audit view: keys that were changed.';
COMMENT ON INDEX api_keys_by_revocation_time IS 'The audit view: keys that were revoked.';
COMMENT ON INDEX limits_by_change_time       IS 'The audit view: scopes whose limits were changed.';
COMMENT ON INDEX conversations_by_deletion_time IS 'The audit view: conversations that were deleted.';

-- What open pages are told, and the index for what operators look at first.

CREATE TABLE live_changes (
    xid             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    number          integer     NOT NULL,
    user_id         text        NOT NULL,
    conversation_id uuid        NOT NULL,
    chat_id         uuid,
    status          text        CHECK (status IN ('started', 'completed', 'failed', 'orphaned')),
    day             date        NOT NULL,
    announced_at    timestamptz NOT NULL,
    PRIMARY KEY (user_id, xid, number),
    CONSTRAINT chats_have_a_status CHECK ((chat_id IS NULL) = (status IS NULL))
);

CREATE INDEX live_changes_by_age ON live_changes (announced_at);

COMMENT ON TABLE  live_changes                 IS 'What has lately changed in the record, for those who watch. Not part of the record: rows are deleted after a while, and a change may be here twice.';
COMMENT ON INDEX  live_changes_by_age          IS 'What can be deleted.';
COMMENT ON COLUMN live_changes.xid             IS 'The transaction that wrote the row. Readers take what is older than every transaction still running, so that none is passed over, however many recorders write.';
COMMENT ON COLUMN live_changes.number          IS 'Its place in the transaction.';
COMMENT ON COLUMN live_changes.user_id         IS 'Whose record changed.';
COMMENT ON COLUMN live_changes.conversation_id IS 'The conversation that changed.';
COMMENT ON COLUMN live_changes.chat_id         IS 'The chat that started or ended. Null: the conversation itself was opened, changed or deleted.';
COMMENT ON COLUMN live_changes.status          IS 'What the event said of the chat.';
COMMENT ON COLUMN live_changes.day             IS 'The UTC day whose usage changed with it.';
COMMENT ON COLUMN live_changes.announced_at    IS 'When it was written, for deleting it.';

-- On stage rather than status: a chat that completes never sets it, so that its second write stays off the indexes.
CREATE INDEX chats_failed ON chats (started_at DESC, chat_id DESC) WHERE stage IS NOT NULL;

COMMENT ON INDEX chats_failed IS 'The latest failures of all users, a page at a time.';

-- What users change of their conversations: ConversationChanged and ConversationDeleted, projected. Of two changes the one
-- with the greater id stands (ids are UUIDv7: the later one, and at the same moment the greater), in whatever order they come.

ALTER TABLE conversations
    ADD COLUMN title_change_id   uuid,
    ADD COLUMN archived          boolean     NOT NULL DEFAULT false,
    ADD COLUMN archive_change_id uuid,
    ADD COLUMN deleted_at        timestamptz,
    ADD CONSTRAINT renamed_has_a_title CHECK (title_change_id IS NULL OR (title IS NOT NULL AND title_chat_id IS NULL)),
    ADD CONSTRAINT archived_by_a_change CHECK (archive_change_id IS NOT NULL OR NOT archived);

COMMENT ON COLUMN conversations.title             IS 'The title that the user gave it last, else the one that the client opened it with, else the first line''s worth (at most 80 characters) of the first user message. Null: none is known.';
COMMENT ON COLUMN conversations.last_message_at   IS 'When the last message came; when it was opened, as long as there is none. The Unix epoch as long as only changes of it have been seen.';
COMMENT ON COLUMN conversations.title_change_id   IS 'The change that gave it its title. Null: nobody renamed it.';
COMMENT ON COLUMN conversations.archived          IS 'Whether the user put it away.';
COMMENT ON COLUMN conversations.archive_change_id IS 'The change that put it away or took it out again. Null: none did.';
COMMENT ON COLUMN conversations.deleted_at        IS 'When the user deleted it: no read shows it or its messages any more, and nothing brings it back. What it used stays counted. Null: it is not deleted.';

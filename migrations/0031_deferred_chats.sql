-- Chats whose answers a provider makes in the background. Works with the code before it, which leaves the columns empty.

ALTER TABLE chats
    ADD COLUMN deferred_at          timestamptz,
    ADD COLUMN deferred_upstream    text,
    ADD COLUMN deferred_response_id text,
    ADD CONSTRAINT chats_deferral CHECK (
        num_nulls(deferred_at, deferred_upstream, deferred_response_id) IN (0, 3)
    );

CREATE INDEX chats_deferred ON chats (user_id, deferred_response_id) WHERE deferred_response_id IS NOT NULL;

COMMENT ON COLUMN chats.deferred_at          IS 'The time at which the provider had accepted the chat, to make the answer in the background. NULL for a chat that was answered at once.';
COMMENT ON COLUMN chats.deferred_upstream    IS 'The upstream that makes the answer in the background.';
COMMENT ON COLUMN chats.deferred_response_id IS 'The id by which the provider knows the answer before it is there. Providers reuse ids: never a key.';
COMMENT ON INDEX  chats_deferred             IS 'The chats of a user whose answers a provider makes in the background, by the provider''s id.';

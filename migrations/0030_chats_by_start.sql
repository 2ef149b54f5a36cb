-- The calls of all users, newest first, for administrators. Works with the code before it.

CREATE INDEX chats_by_start ON chats (started_at DESC, chat_id DESC);

COMMENT ON INDEX chats_by_start IS 'The latest calls of all users.';

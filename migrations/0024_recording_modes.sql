-- The recording mode of chats, messages and API keys. Works with the code before it: what was recorded before was recorded in full.

ALTER TABLE chats ADD COLUMN recording text NOT NULL DEFAULT 'full';
ALTER TABLE messages ADD COLUMN recording text NOT NULL DEFAULT 'full';
ALTER TABLE api_keys ADD COLUMN recording text;

COMMENT ON COLUMN chats.recording    IS 'The parts of the chat that its events kept: full (everything), metadata (no texts) or none (no contents at all). A later version may write other words.';
COMMENT ON COLUMN messages.recording IS 'The parts of the message that the event kept: full, metadata or none. Without full, the texts are empty or null, because they were not recorded.';
COMMENT ON COLUMN api_keys.recording IS 'The most that events keep of calls with the key: full, metadata or none. Null: full, and keys whose settings are not known yet.';

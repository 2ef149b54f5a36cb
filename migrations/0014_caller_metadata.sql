-- What the caller says about a chat, to be asked for. Works with the code before it, which leaves it null. Chats that were
-- projected before it have none until the tables are rebuilt from the log.

ALTER TABLE chats ADD COLUMN caller_metadata jsonb;

-- Only of chats of which something was said, and only for @>, which is what looks for a tag, a user or a member of the metadata.
CREATE INDEX chats_by_caller_metadata ON chats USING gin (caller_metadata jsonb_path_ops)
    WHERE caller_metadata IS NOT NULL;

COMMENT ON INDEX  chats_by_caller_metadata IS 'Chats by what the caller said about them: caller_metadata @> ''{"tags": ["a"]}''.';
COMMENT ON COLUMN chats.caller_metadata IS 'What the caller said about the chat: an object with user and metadata as in the request''s body, and tags (an array) as in its header x-stenograph-tags; those that were sent. Null: nothing. Metadata that jsonb cannot hold is there as a string.';

-- Three wire formats instead of one, and spoken answers. Works with the code before it: it writes neither.

ALTER TABLE chats DROP CONSTRAINT chats_dialect_check;
ALTER TABLE chats ADD CONSTRAINT chats_dialect_check
    CHECK (dialect IN ('openai_chat', 'openai_responses', 'anthropic_messages'));

ALTER TABLE messages ADD COLUMN audio_transcript text;

COMMENT ON COLUMN messages.audio_transcript IS 'What a spoken answer says, where the provider sent it beside the sound. Null: it was not spoken.';

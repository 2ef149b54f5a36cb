-- Responses by the provider's id, for the caller who asks for a response again. Works with the code before it.

CREATE INDEX chats_by_response ON chats (user_id, upstream_response_id)
    WHERE dialect = 'openai_responses' AND upstream_response_id IS NOT NULL;

COMMENT ON INDEX chats_by_response IS 'The chats of a user that made a response of OpenAI''s Responses API, by the provider''s id.';

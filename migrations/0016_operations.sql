-- Calls that are no chats, several new messages of a chat, and words of later versions. Works with the code before it: a chat with at
-- most one new message has the same row as before, and what is new has defaults. Until gateways are upgraded there is nothing else.

ALTER TABLE chats
    ALTER COLUMN conversation_id DROP NOT NULL,
    ADD COLUMN operation text NOT NULL DEFAULT 'chat',
    ADD COLUMN new_messages smallint CHECK (new_messages > 1),
    ADD COLUMN media jsonb,
    DROP CONSTRAINT chats_conversation_origin_check,
    DROP CONSTRAINT chats_dialect_check,
    DROP CONSTRAINT chats_stage_check,
    DROP CONSTRAINT chats_usage_source_check,
    DROP CONSTRAINT request_is_whole,
    ADD CONSTRAINT request_is_whole CHECK (num_nulls(request_digest, dialect, stream) IN (0, 3)),
    ADD CONSTRAINT several_are_some CHECK (new_messages IS NULL OR has_user_message);

ALTER TABLE messages
    ALTER COLUMN conversation_id DROP NOT NULL,
    DROP CONSTRAINT messages_position_check,
    ADD CONSTRAINT messages_position_check CHECK (position <= 1),
    ADD COLUMN tool_call_id text;

-- Calls other than chats alone: usage_slots counts all calls, so a chat costs no second row, and the recorder before this one, which
-- knows chats only, has nothing to write here.
CREATE TABLE operation_slots (
    user_id                     text        NOT NULL,
    slot_at                     timestamptz NOT NULL,
    model                       text        NOT NULL CHECK (octet_length(model) <= 256),
    operation                   text        NOT NULL CHECK (operation <> 'chat'),
    api_calls                   bigint NOT NULL,
    successful_calls            bigint NOT NULL,
    failed_calls                bigint NOT NULL,
    prompt_tokens               bigint NOT NULL,
    completion_tokens           bigint NOT NULL,
    total_tokens                bigint NOT NULL,
    estimated_prompt_tokens     bigint NOT NULL,
    estimated_completion_tokens bigint NOT NULL,
    estimated_total_tokens      bigint NOT NULL,
    messages_created            bigint NOT NULL,
    conversations_created       bigint NOT NULL,
    PRIMARY KEY (user_id, slot_at, model, operation),
    CONSTRAINT slots_are_quarters CHECK (date_bin('15 minutes', slot_at, '2000-01-01 00:00+00') = slot_at),
    CONSTRAINT every_call_has_one_outcome CHECK (api_calls = successful_calls + failed_calls)
) WITH (fillfactor = 50);

CREATE INDEX operation_slots_by_time ON operation_slots (slot_at);

COMMENT ON COLUMN chats.conversation_id          IS 'The conversation of the chat. Null: a call that belongs to no conversation, such as embeddings.';
COMMENT ON COLUMN chats.operation                IS 'The kind of the call: chat, text_completion, embeddings, moderation, rerank, image_generation, speech, transcription and others; an open list of words.';
COMMENT ON COLUMN chats.new_messages             IS 'The number of new messages of the request where there are several. Null: one or none, as has_user_message says.';
COMMENT ON COLUMN chats.media                    IS 'Sizes, counts and durations of a call that is no chat: an object with input_bytes, output_bytes, input_items, output_items, input_seconds, output_seconds, each where known. Null: none.';
COMMENT ON COLUMN chats.has_user_message         IS 'True if the request added a message to its conversation, or several.';
COMMENT ON COLUMN messages.conversation_id       IS 'The conversation of the message. Null: the message of a call that belongs to no conversation.';
COMMENT ON COLUMN messages.position              IS 'The position of the message in its chat: 1 for the answer, 0 for the last new message of the request, -1 for the new message before that, and so on.';
COMMENT ON COLUMN messages.tool_call_id          IS 'The id of the tool call that the message answers, as the model named it. Null: the message is no tool result, or the client named no call.';
COMMENT ON TABLE  operation_slots IS 'Usage of calls other than chats, by user, quarter of an hour, model and operation. usage_slots counts all calls: the usage of chats is the difference.';
COMMENT ON INDEX  operation_slots_by_time IS 'The usage of all users in a span of time.';
COMMENT ON COLUMN operation_slots.user_id                     IS 'The user.';
COMMENT ON COLUMN operation_slots.slot_at                     IS 'The beginning of the quarter of an hour in which the calls started.';
COMMENT ON COLUMN operation_slots.model                       IS 'The model that the client asked for, at most 256 bytes of its name.';
COMMENT ON COLUMN operation_slots.operation                   IS 'The kind of the calls, as in chats.operation; never chat.';
COMMENT ON COLUMN operation_slots.api_calls                   IS 'Calls that have ended: successful and failed ones.';
COMMENT ON COLUMN operation_slots.successful_calls            IS 'Calls that completed.';
COMMENT ON COLUMN operation_slots.failed_calls                IS 'Calls that failed or were orphaned.';
COMMENT ON COLUMN operation_slots.prompt_tokens               IS 'Input tokens as reported by providers.';
COMMENT ON COLUMN operation_slots.completion_tokens           IS 'Output tokens as reported by providers.';
COMMENT ON COLUMN operation_slots.total_tokens                IS 'All tokens as reported by providers.';
COMMENT ON COLUMN operation_slots.estimated_prompt_tokens     IS 'Input tokens of calls without a report, estimated. Never added to the reported ones.';
COMMENT ON COLUMN operation_slots.estimated_completion_tokens IS 'Output tokens of calls without a report, estimated.';
COMMENT ON COLUMN operation_slots.estimated_total_tokens      IS 'All tokens of calls without a report, estimated.';
COMMENT ON COLUMN operation_slots.messages_created            IS 'Messages of these calls, of both sides.';
COMMENT ON COLUMN operation_slots.conversations_created       IS 'Always 0: only chats open conversations. The column makes the sums of both tables comparable.';

ALTER TABLE live_changes ALTER COLUMN conversation_id DROP NOT NULL;

COMMENT ON COLUMN live_changes.conversation_id IS 'The conversation that changed. Null: a call that belongs to no conversation started or ended.';

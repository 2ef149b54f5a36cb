-- The record: four tables that are a pure function of the events. Dropped and projected anew from the stream, each row
-- comes back identical: hence no now(), no sequences, no serial numbers, and no column that only this database knows.
--
-- No foreign keys. A user may be unknown to the users table (external identity providers), and events arrive in any order:
-- a message may well come before its conversation. What belongs together is written in one transaction.
--
-- Each index costs the recorder throughput; each one here serves a read that is named in its comment.

-- === chats: the ledger ===

CREATE TABLE chats (
    chat_id                uuid             PRIMARY KEY,
    conversation_id        uuid             NOT NULL,
    user_id                text             NOT NULL,
    gateway                text             NOT NULL,
    model                  text             NOT NULL,
    started_at             timestamptz      NOT NULL,
    status                 text             NOT NULL CHECK (status IN ('started', 'orphaned', 'failed', 'completed')),
    -- From ChatStarted.
    request_digest         bigint,
    conversation_origin    text             CHECK (conversation_origin IN ('minted', 'given', 'derived')),
    client_thread_id       text,
    dialect                text             CHECK (dialect IN ('openai_chat')),
    stream                 boolean,
    temperature            double precision,
    has_user_message       boolean          NOT NULL,
    -- From the event that ended it.
    ending_digest          bigint,
    finished_at            timestamptz,
    has_assistant_message  boolean          NOT NULL,
    stage                  text             CHECK (stage IN ('upstream_connect', 'upstream_status', 'upstream_stream',
                                                             'client_gone', 'gateway_restarted', 'gateway_lost')),
    error_status           integer,
    error_type             text,
    error_code             text,
    error_message          text,
    upstream_name          text,
    upstream_model         text,
    upstream_response_id   text,
    attempts               jsonb,
    time_to_first_token_ms bigint           CHECK (time_to_first_token_ms >= 0),
    duration_ms            bigint           CHECK (duration_ms >= 0),
    usage_source           text             CHECK (usage_source IN ('reported', 'estimated', 'unknown')),
    prompt_tokens          bigint           CHECK (prompt_tokens >= 0),
    completion_tokens      bigint           CHECK (completion_tokens >= 0),
    total_tokens           bigint           CHECK (total_tokens >= 0),
    uncached_input_tokens  bigint           CHECK (uncached_input_tokens >= 0),
    cache_read_tokens      bigint           CHECK (cache_read_tokens >= 0),
    cache_write_tokens     bigint           CHECK (cache_write_tokens >= 0),
    output_tokens          bigint           CHECK (output_tokens >= 0),
    reasoning_tokens       bigint           CHECK (reasoning_tokens >= 0),
    usage_raw              jsonb,
    notes                  jsonb,
    CONSTRAINT request_is_whole
        CHECK (num_nulls(request_digest, conversation_origin, dialect, stream) IN (0, 4)),
    CONSTRAINT message_needs_request
        CHECK (request_digest IS NOT NULL OR NOT has_user_message),
    CONSTRAINT started_has_no_ending
        CHECK ((status = 'started') = (ending_digest IS NULL)),
    CONSTRAINT ending_is_whole
        CHECK (num_nulls(ending_digest, finished_at, attempts, duration_ms, usage_source, uncached_input_tokens,
                         cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, notes) IN (0, 11)),
    CONSTRAINT message_needs_ending
        CHECK (ending_digest IS NOT NULL OR NOT has_assistant_message),
    CONSTRAINT failure_has_a_stage
        CHECK ((status IN ('failed', 'orphaned')) = (stage IS NOT NULL)
               AND (stage IS NULL) = (error_message IS NULL)),
    CONSTRAINT orphaned_is_gateway_lost
        CHECK ((status = 'orphaned') = (stage IS NOT NULL AND stage = 'gateway_lost'))
-- A chat is written when it starts and once more when it ends: room on the page keeps the second write off the indexes.
) WITH (fillfactor = 80);

CREATE INDEX chats_by_user ON chats (user_id, started_at DESC, chat_id DESC);

COMMENT ON TABLE  chats IS 'The ledger: one row a chat (a request and its answer). Its state decides what still has to be counted, so that an event counts once however often it is delivered.';
COMMENT ON INDEX  chats_by_user IS 'A user''s chats, newest first, a page at a time; and the chats of a span of time.';
COMMENT ON COLUMN chats.chat_id                IS 'The chat: a UUIDv7 that the gateway minted.';
COMMENT ON COLUMN chats.conversation_id        IS 'The conversation it belongs to.';
COMMENT ON COLUMN chats.user_id                IS 'Whose chat it is: the subject of the token it came with.';
COMMENT ON COLUMN chats.gateway                IS 'The gateway instance that served it.';
COMMENT ON COLUMN chats.model                  IS 'The model that the client asked for.';
COMMENT ON COLUMN chats.started_at             IS 'When it was admitted. Its UTC day is the day that it counts for.';
COMMENT ON COLUMN chats.status                 IS 'started: no end is known yet; orphaned: its gateway was lost before the end; failed: it ended without an answer, or with part of one; completed: with an answer. A later word in this list replaces an earlier one, never the other way round.';
COMMENT ON COLUMN chats.request_digest         IS 'Tells apart two ChatStarted of the same chat, which no gateway publishes: the least one stands. Null: ChatStarted has not been seen.';
COMMENT ON COLUMN chats.conversation_origin    IS 'How it came by its conversation: minted: the client named none; given: it named one it had been given; derived: it named a thread of its own. Null until ChatStarted is seen.';
COMMENT ON COLUMN chats.client_thread_id       IS 'The client''s own name for the thread, where it sent one.';
COMMENT ON COLUMN chats.dialect                IS 'The wire format that the client speaks. Null until ChatStarted is seen.';
COMMENT ON COLUMN chats.stream                 IS 'Whether the client asked for a stream. Null until ChatStarted is seen.';
COMMENT ON COLUMN chats.temperature            IS 'The sampling temperature that the client asked for. Null: none.';
COMMENT ON COLUMN chats.has_user_message       IS 'Whether the request added a message to the conversation, which then is in messages.';
COMMENT ON COLUMN chats.ending_digest          IS 'Tells apart two endings of the same status: the earlier one stands, and of two at the same time the one with the least digest. Null: no ending has been seen.';
COMMENT ON COLUMN chats.finished_at            IS 'When it ended.';
COMMENT ON COLUMN chats.has_assistant_message  IS 'Whether there is an answer, whole or partial, which then is in messages.';
COMMENT ON COLUMN chats.stage                  IS 'Where it failed. Null unless failed or orphaned.';
COMMENT ON COLUMN chats.error_status           IS 'The HTTP status of the failure, where one came.';
COMMENT ON COLUMN chats.error_type             IS 'The provider''s error type, or the gateway''s word for it.';
COMMENT ON COLUMN chats.error_code             IS 'The provider''s error code.';
COMMENT ON COLUMN chats.error_message          IS 'The error in words. Null unless failed or orphaned.';
COMMENT ON COLUMN chats.upstream_name          IS 'The upstream that answered, by its name in this deployment.';
COMMENT ON COLUMN chats.upstream_model         IS 'The model that answered, in the upstream''s own word.';
COMMENT ON COLUMN chats.upstream_response_id   IS 'The provider''s id of the response. Providers reuse ids and leave them out: never a key.';
COMMENT ON COLUMN chats.attempts               IS 'Every try at an upstream, in order: upstream, started_at, duration_ms, status, error.';
COMMENT ON COLUMN chats.time_to_first_token_ms IS 'From admission to the first text, reasoning or tool call, in milliseconds.';
COMMENT ON COLUMN chats.duration_ms            IS 'From admission to the end, in milliseconds.';
COMMENT ON COLUMN chats.usage_source           IS 'Where the token numbers come from: reported by the provider, estimated with a tokenizer, or unknown.';
COMMENT ON COLUMN chats.prompt_tokens          IS 'Input tokens, cached ones included. Null: unknown. Token numbers over 10^12 are cut to that; usage_raw has what was sent.';
COMMENT ON COLUMN chats.completion_tokens      IS 'Output tokens, as the provider counts them. Null: unknown.';
COMMENT ON COLUMN chats.total_tokens           IS 'All tokens: as reported, else the sum of the two. Null: unknown.';
COMMENT ON COLUMN chats.uncached_input_tokens  IS 'Disjoint part: input read anew.';
COMMENT ON COLUMN chats.cache_read_tokens      IS 'Disjoint part: input read from the provider''s cache.';
COMMENT ON COLUMN chats.cache_write_tokens     IS 'Disjoint part: input written to the provider''s cache.';
COMMENT ON COLUMN chats.output_tokens          IS 'Disjoint part: output without reasoning.';
COMMENT ON COLUMN chats.reasoning_tokens       IS 'Disjoint part: reasoning output.';
COMMENT ON COLUMN chats.usage_raw              IS 'The provider''s own usage object. What jsonb cannot hold is kept as text: see the documentation of the recorder''s projection.';
COMMENT ON COLUMN chats.notes                  IS 'What was odd about the answer: an array of words.';

-- === conversations ===

CREATE TABLE conversations (
    conversation_id        uuid             PRIMARY KEY,
    user_id                text             NOT NULL,
    created_at             timestamptz      NOT NULL,
    last_message_at        timestamptz      NOT NULL,
    title                  text             CHECK (char_length(title) BETWEEN 1 AND 80),
    title_chat_id          uuid,
    model                  text,
    temperature            double precision,
    settings_chat_id       uuid,
    message_count          bigint           NOT NULL CHECK (message_count >= 0),
    total_tokens           bigint           NOT NULL CHECK (total_tokens >= 0),
    estimated_total_tokens bigint           NOT NULL CHECK (estimated_total_tokens >= 0),
    CHECK (title_chat_id IS NULL OR title IS NOT NULL)
) WITH (fillfactor = 80);

CREATE INDEX conversations_by_user ON conversations (user_id, last_message_at DESC, conversation_id DESC);

COMMENT ON TABLE  conversations IS 'Threads of chats, one row each.';
COMMENT ON INDEX  conversations_by_user IS 'A user''s conversations, the latest used first, a page at a time.';
COMMENT ON COLUMN conversations.conversation_id        IS 'The conversation: a UUIDv8 that only a gateway can make.';
COMMENT ON COLUMN conversations.user_id                IS 'Whose it is.';
COMMENT ON COLUMN conversations.created_at             IS 'When it was opened: the earliest time in any of its events. Its UTC day is the day that it counts for in usage_stats.conversations_created.';
COMMENT ON COLUMN conversations.last_message_at        IS 'When the last message came; when it was opened, as long as there is none.';
COMMENT ON COLUMN conversations.title                  IS 'The title that the client gave it, else the first line''s worth (at most 80 characters) of the first user message. Null: neither is known.';
COMMENT ON COLUMN conversations.title_chat_id          IS 'The chat whose message the title was made from: of the chats seen, the first with text. Null: the client gave the title.';
COMMENT ON COLUMN conversations.model                  IS 'The model of the latest chat started in it, or what it was opened with.';
COMMENT ON COLUMN conversations.temperature            IS 'The temperature of the latest chat started in it, or what it was opened with. Null: none was asked for.';
COMMENT ON COLUMN conversations.settings_chat_id       IS 'The chat that model and temperature come from. Null: what it was opened with.';
COMMENT ON COLUMN conversations.message_count          IS 'How many rows of messages belong to its chats.';
COMMENT ON COLUMN conversations.total_tokens           IS 'The sum of its chats'' total tokens, as reported by providers.';
COMMENT ON COLUMN conversations.estimated_total_tokens IS 'The same of chats whose tokens were estimated. Never mixed with the reported ones.';

-- === messages ===

CREATE TABLE messages (
    message_id      uuid        PRIMARY KEY,
    conversation_id uuid        NOT NULL,
    chat_id         uuid        NOT NULL,
    position        smallint    NOT NULL CHECK (position IN (0, 1)),
    user_id         text        NOT NULL,
    role            text        NOT NULL,
    status          text        NOT NULL CHECK (status IN ('complete', 'partial', 'truncated')),
    content         text        NOT NULL,
    reasoning       text,
    refusal         text,
    tool_calls      jsonb,
    finish_reason   text,
    model           text        NOT NULL,
    tokens          bigint      CHECK (tokens >= 0),
    created_at      timestamptz NOT NULL
);

CREATE INDEX messages_by_conversation ON messages (conversation_id, chat_id, position);

COMMENT ON TABLE  messages IS 'What was said. A message is written once, when it is final: while an answer is under way its chat is `started` in chats, and there is no row here.';
COMMENT ON INDEX  messages_by_conversation IS 'A conversation''s messages in order, a page at a time.';
COMMENT ON COLUMN messages.message_id      IS 'The message: derived from the chat, so that it is the same whoever names it.';
COMMENT ON COLUMN messages.conversation_id IS 'The conversation it was said in.';
COMMENT ON COLUMN messages.chat_id         IS 'The chat it belongs to. Chat ids ascend with time: messages are in order by (chat_id, position).';
COMMENT ON COLUMN messages.position        IS 'Its place in the chat: 0 asked, 1 answered.';
COMMENT ON COLUMN messages.user_id         IS 'Whose record it belongs to.';
COMMENT ON COLUMN messages.role            IS 'user or tool (or whatever role the client gave it), or assistant.';
COMMENT ON COLUMN messages.status          IS 'complete; partial: the answer broke off, or the client left before its end; truncated: the answer was whole, but longer than the gateway records.';
COMMENT ON COLUMN messages.content         IS 'Its text. PostgreSQL text cannot hold U+0000: it stands as the six characters \u0000.';
COMMENT ON COLUMN messages.reasoning       IS 'Reasoning text, where the model showed any.';
COMMENT ON COLUMN messages.refusal         IS 'The model''s refusal, where it came apart from the text.';
COMMENT ON COLUMN messages.tool_calls      IS 'Calls of the client''s tools: an array of id, name, arguments (a text). Null: none.';
COMMENT ON COLUMN messages.finish_reason   IS 'Why the answer ended, in the provider''s word; client_gone where the client left first.';
COMMENT ON COLUMN messages.model           IS 'The model that the client asked for.';
COMMENT ON COLUMN messages.tokens          IS 'Output tokens of an answer, reported or estimated as its chat says. Null: unknown, and for messages of the asking side, whose tokens nobody reports one by one.';
COMMENT ON COLUMN messages.created_at      IS 'When it was asked (the chat''s start), or when the answer ended.';

-- === usage_stats ===

CREATE TABLE usage_stats (
    user_id                     text   NOT NULL,
    date                        date   NOT NULL,
    api_calls                   bigint NOT NULL CHECK (api_calls >= 0),
    successful_calls            bigint NOT NULL CHECK (successful_calls >= 0),
    failed_calls                bigint NOT NULL CHECK (failed_calls >= 0),
    prompt_tokens               bigint NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens           bigint NOT NULL CHECK (completion_tokens >= 0),
    total_tokens                bigint NOT NULL CHECK (total_tokens >= 0),
    estimated_prompt_tokens     bigint NOT NULL CHECK (estimated_prompt_tokens >= 0),
    estimated_completion_tokens bigint NOT NULL CHECK (estimated_completion_tokens >= 0),
    estimated_total_tokens      bigint NOT NULL CHECK (estimated_total_tokens >= 0),
    messages_created            bigint NOT NULL CHECK (messages_created >= 0),
    conversations_created       bigint NOT NULL CHECK (conversations_created >= 0),
    PRIMARY KEY (user_id, date),
    CONSTRAINT every_call_has_one_outcome CHECK (api_calls = successful_calls + failed_calls)
) WITH (fillfactor = 50);

COMMENT ON TABLE  usage_stats IS 'What each user used, by UTC day. Derived from the rows of chats and conversations: a change of a row is written here as what the new row contributes minus what the old one did. A row that would be all zeros does not exist.';
COMMENT ON COLUMN usage_stats.user_id                     IS 'The user.';
COMMENT ON COLUMN usage_stats.date                        IS 'The UTC day on which the chats started.';
COMMENT ON COLUMN usage_stats.api_calls                   IS 'Chats that have ended: successful and failed ones.';
COMMENT ON COLUMN usage_stats.successful_calls            IS 'Chats that completed.';
COMMENT ON COLUMN usage_stats.failed_calls                IS 'Chats that failed or were orphaned.';
COMMENT ON COLUMN usage_stats.prompt_tokens               IS 'Input tokens as reported by providers, of chats that ended either way.';
COMMENT ON COLUMN usage_stats.completion_tokens           IS 'Output tokens as reported by providers.';
COMMENT ON COLUMN usage_stats.total_tokens                IS 'All tokens as reported by providers.';
COMMENT ON COLUMN usage_stats.estimated_prompt_tokens     IS 'Input tokens of chats without a report, estimated. Never mixed with the reported ones.';
COMMENT ON COLUMN usage_stats.estimated_completion_tokens IS 'Output tokens of chats without a report, estimated.';
COMMENT ON COLUMN usage_stats.estimated_total_tokens      IS 'All tokens of chats without a report, estimated.';
COMMENT ON COLUMN usage_stats.messages_created            IS 'Messages of these chats, of both sides.';
COMMENT ON COLUMN usage_stats.conversations_created       IS 'Conversations opened on this day.';

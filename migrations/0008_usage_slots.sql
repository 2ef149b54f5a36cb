-- Usage by quarter of an hour and model: what days, weeks and months in any time zone are summed from. (Every zone's offset
-- has been a multiple of 15 minutes since 1972.)

CREATE TABLE usage_slots (
    user_id                     text        NOT NULL,
    slot_at                     timestamptz NOT NULL,
    model                       text        NOT NULL CHECK (octet_length(model) <= 256),
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
    PRIMARY KEY (user_id, slot_at, model),
    CONSTRAINT slots_are_quarters CHECK (date_bin('15 minutes', slot_at, '2000-01-01 00:00+00') = slot_at),
    CONSTRAINT every_call_has_one_outcome CHECK (api_calls = successful_calls + failed_calls)
) WITH (fillfactor = 50);

CREATE INDEX usage_slots_by_time ON usage_slots (slot_at);

COMMENT ON TABLE  usage_slots IS 'What each user used, by quarter of an hour and model. Kept as usage_stats is, and sums to it: the quarters of a UTC day over all models are that day.';
COMMENT ON INDEX  usage_slots_by_time IS 'What all users used in a span of time.';
COMMENT ON COLUMN usage_slots.user_id                     IS 'The user.';
COMMENT ON COLUMN usage_slots.slot_at                     IS 'The beginning of the quarter of an hour in which the chats started.';
COMMENT ON COLUMN usage_slots.model                       IS 'The model that the client asked for, at most 256 bytes of its name. Empty: what has no model, which is the opening of conversations.';
COMMENT ON COLUMN usage_slots.api_calls                   IS 'Chats that have ended: successful and failed ones.';
COMMENT ON COLUMN usage_slots.successful_calls            IS 'Chats that completed.';
COMMENT ON COLUMN usage_slots.failed_calls                IS 'Chats that failed or were orphaned.';
COMMENT ON COLUMN usage_slots.prompt_tokens               IS 'Input tokens as reported by providers, of chats that ended either way.';
COMMENT ON COLUMN usage_slots.completion_tokens           IS 'Output tokens as reported by providers.';
COMMENT ON COLUMN usage_slots.total_tokens                IS 'All tokens as reported by providers.';
COMMENT ON COLUMN usage_slots.estimated_prompt_tokens     IS 'Input tokens of chats without a report, estimated. Never mixed with the reported ones.';
COMMENT ON COLUMN usage_slots.estimated_completion_tokens IS 'Output tokens of chats without a report, estimated.';
COMMENT ON COLUMN usage_slots.estimated_total_tokens      IS 'All tokens of chats without a report, estimated.';
COMMENT ON COLUMN usage_slots.messages_created            IS 'Messages of these chats, of both sides.';
COMMENT ON COLUMN usage_slots.conversations_created       IS 'Conversations opened in this quarter of an hour.';

-- What is there already. A recorder of the version before this one, still running, does not count here: once it is gone,
-- `recorder rebuild` makes this table whole.
INSERT INTO usage_slots
SELECT user_id, slot_at, model, sum(api_calls), sum(successful_calls), sum(failed_calls), sum(prompt_tokens),
       sum(completion_tokens), sum(total_tokens), sum(estimated_prompt_tokens), sum(estimated_completion_tokens),
       sum(estimated_total_tokens), sum(messages_created), sum(conversations_created)
FROM (
    SELECT user_id, date_bin('15 minutes', started_at, '2000-01-01 00:00+00') AS slot_at,
           CASE WHEN octet_length(model) <= 256 THEN model ELSE left(model, 64) END AS model,
           (status <> 'started')::int AS api_calls, (status = 'completed')::int AS successful_calls,
           (status IN ('failed', 'orphaned'))::int AS failed_calls,
           CASE WHEN usage_source = 'reported' THEN coalesce(prompt_tokens, 0) ELSE 0 END AS prompt_tokens,
           CASE WHEN usage_source = 'reported' THEN coalesce(completion_tokens, 0) ELSE 0 END AS completion_tokens,
           CASE WHEN usage_source = 'reported'
                THEN coalesce(total_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)) ELSE 0 END AS total_tokens,
           CASE WHEN usage_source = 'estimated' THEN coalesce(prompt_tokens, 0) ELSE 0 END AS estimated_prompt_tokens,
           CASE WHEN usage_source = 'estimated' THEN coalesce(completion_tokens, 0) ELSE 0 END AS estimated_completion_tokens,
           CASE WHEN usage_source = 'estimated'
                THEN coalesce(total_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)) ELSE 0 END AS estimated_total_tokens,
           has_user_message::int + has_assistant_message::int AS messages_created, 0 AS conversations_created
    FROM chats
    UNION ALL
    SELECT user_id, date_bin('15 minutes', created_at, '2000-01-01 00:00+00'), '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
    FROM conversations
) AS contributions
GROUP BY user_id, slot_at, model
HAVING sum(api_calls) > 0 OR sum(messages_created) > 0 OR sum(conversations_created) > 0;

-- The cost of each call, and sums of costs. Works with the code before it: what is new may be null or has a default. Calls that ended
-- before have no cost, and the sums count none for them, until `recorder rebuild` prices them.

ALTER TABLE chats
    ADD COLUMN cost_nanodollars          bigint,
    ADD COLUMN cost_parts                jsonb,
    ADD COLUMN price_version             text,
    ADD COLUMN priced_as                 text,
    ADD COLUMN provider_cost_nanodollars bigint;

COMMENT ON COLUMN chats.cost_nanodollars          IS 'The cost in nano-dollars (10⁻⁹ US dollars), by the price list in force when the call started; an estimate if usage_source is estimated. Null with a price_version: unpriced, the list has no price. Null without: nothing was charged, or the call has not been priced.';
COMMENT ON COLUMN chats.cost_parts                IS 'The parts of the cost that are not 0, in nano-dollars: input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio, other. Their sum is cost_nanodollars.';
COMMENT ON COLUMN chats.price_version             IS 'The price list that was asked for the price: the first 16 digits of its SHA-256.';
COMMENT ON COLUMN chats.priced_as                 IS 'The provider and the model whose prices applied, such as openai/gpt-5.';
COMMENT ON COLUMN chats.provider_cost_nanodollars IS 'The figure that the provider itself sent for the cost, in nano-dollars. Null: none.';

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['usage_stats', 'usage_slots', 'operation_slots', 'key_slots'] LOOP
        EXECUTE format('ALTER TABLE %I
            ADD COLUMN cost_nanodollars           bigint NOT NULL DEFAULT 0,
            ADD COLUMN estimated_cost_nanodollars bigint NOT NULL DEFAULT 0,
            ADD COLUMN provider_cost_nanodollars  bigint NOT NULL DEFAULT 0,
            ADD COLUMN unpriced_calls             bigint NOT NULL DEFAULT 0', of_table);
        EXECUTE format('COMMENT ON COLUMN %I.cost_nanodollars IS %L', of_table,
            'The cost of calls with usage as reported by providers, in nano-dollars.');
        EXECUTE format('COMMENT ON COLUMN %I.estimated_cost_nanodollars IS %L', of_table,
            'The cost of calls with estimated usage, in nano-dollars. Never added to the other.');
        EXECUTE format('COMMENT ON COLUMN %I.provider_cost_nanodollars IS %L', of_table,
            'The sum of the figures that providers themselves sent for the cost, in nano-dollars.');
        EXECUTE format('COMMENT ON COLUMN %I.unpriced_calls IS %L', of_table,
            'Calls that may have cost something and have no known price. They are in no sum of costs.');
    END LOOP;
END $$;

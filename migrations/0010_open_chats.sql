-- Which gateways have chats under way, and which chats those are: what is looked at to find the chats of a lost gateway.

CREATE INDEX chats_open ON chats (gateway, started_at) WHERE status = 'started';

COMMENT ON INDEX chats_open IS 'The chats without an end, by gateway, the oldest first. As many entries as chats are under way.';

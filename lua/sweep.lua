-- Removes a page of what expiry left behind in the indexes.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 limit       integer
-- RETURNS
--   OK count  how many runs were removed from the indexes
-- WRITES base
-- COST 1 ZRANGEBYSCORE; a run: 6 ZREM
-- include: states, time, keys, index

return {'OK', digits(remove_expired(KEYS[1], server_ms(), tonumber(ARGV[1])))}

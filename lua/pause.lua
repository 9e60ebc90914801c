-- Pauses a target: no worker starts its runs until it is resumed.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 target     text
--   2 partitions text
-- RETURNS
--   OK
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
-- WRITES base
-- COST 1 HGET, 1 SADD
-- include: keys, partition

local refused = unconfirmed(KEYS[1], ARGV[2])
if refused then return refused end
redis.call('SADD', paused_key(KEYS[1]), ARGV[1])
return {'OK'}

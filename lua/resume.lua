-- Lets workers start runs of a target again, and wakes as many as there is work for.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 target     text
--   2 partitions text
-- RETURNS
--   OK
--   UNCONFIRMED             the partition is not known to be one of so many; nothing was written
-- WRITES base
-- COST 1 HGET, 1 SREM, 1 ZCARD, up to 64 XADD
-- include: queue, partition

local base, target = KEYS[1], ARGV[1]
local refused = unconfirmed(base, ARGV[2])
if refused then return refused end
-- Delayed runs have their workers sleep until then: one of them must learn of it.
local waiting = redis.call('ZCARD', queue_key(base, target))
redis.call('SREM', paused_key(base), target)
for _ = 1, math.min(waiting, WAKE_TOKENS) do try(wake, base, target, '') end
return {'OK'}

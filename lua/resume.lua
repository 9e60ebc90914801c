-- Resumes a target: workers may start its runs again, and as many are woken as there are runs.
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
-- COST 1 HGET, 1 SREM, 1 ZCARD, up to 64 XADD
-- include: refusals, keys, wake, partition

local base, target = KEYS[1], ARGV[1]
local refused = unconfirmed(base, ARGV[2])
if refused then return refused end
-- Delayed runs count, too: idle workers do not know their due times, and one of them must learn them.
local waiting = redis.call('ZCARD', queue_key(base, target))
redis.call('SREM', paused_key(base), target)
for _ = 1, math.min(waiting, WAKE_TOKENS) do try(wake, base, target, '') end
return {'OK'}

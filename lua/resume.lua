-- Lets workers start runs of a target again, and wakes as many as there is work for.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 target     text
-- RETURNS
--   OK
-- WRITES base
-- COST 1 SREM, 1 ZCARD, up to 64 XADD
-- include: queue

local base, target = KEYS[1], ARGV[1]
redis.call('SREM', paused_key(base), target)
-- Delayed runs have their workers sleep until then: one of them must learn of it.
local waiting = redis.call('ZCARD', queue_key(base, target))
for _ = 1, math.min(waiting, WAKE_TOKENS) do wake(base, target, '') end
return {'OK'}

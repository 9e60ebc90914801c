-- Enters an idle worker in the sets from which workers are woken, and reports what already waits there.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 worker     text
--   2 targets    texts
-- RETURNS
--   OK work      1 if a run of one of the targets waits: it came before the worker was in the set
-- WRITES base
-- COST 1 TIME; a target: 1 ZREMRANGEBYSCORE, 1 ZADD, 1 PEXPIRE, up to 2 ZRANGEBYSCORE, 1 SISMEMBER
-- include: time, refusals, keys, queue

-- A worker enters its name again every 20 seconds.
local IDLE_MS = 60000
local base, now, work = KEYS[1], server_ms(), '0'

local function enter(target)
  local idle = idle_key(base, target)
  redis.call('ZREMRANGEBYSCORE', idle, '-inf', digits(now - IDLE_MS))
  redis.call('ZADD', idle, digits(now), ARGV[1])
  redis.call('PEXPIRE', idle, IDLE_MS)
  if has_work(base, target, now) then work = '1' end
end

for i = 2, #ARGV do try(enter, ARGV[i]) end
return {'OK', work}

-- Moves the leases of a worker's claims on and names those that are over.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 lease_ms     integer
--   2 live_ttl_ms  integer
--   3 count        integer
--   4 runs         texts: run_id, claim, for each
-- RETURNS
--   OK claim*  the claims that are over
-- WRITES base
-- COST a run: 2 HMGET, 1 XREVRANGE, 1 ZREM, 1 ZADD
-- include: states, time, keys, run

local base, lease_ms, live_ttl_ms = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local now, answer = server_ms(), {'OK'}
for i = 1, tonumber(ARGV[3]) do
  local run_id, claim = ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  if damaged then
    -- Neither kept nor lost: its lease runs out, and who takes it back tells of it.
    redis.call('ZADD', leases_key(base), 'NX', digits(now), run_id)
  elseif run and run.claim == claim then
    -- A server that is out of memory refuses a script whose first write could grow: ZADD alone
    -- would have all runs taken over, and that writes more than keeping them.
    redis.call('ZREM', leases_key(base), run_id)
    redis.call('ZADD', leases_key(base), digits(now + lease_ms), run_id)
    touch_live(run, keys, now, live_ttl_ms)
  else
    answer[#answer + 1] = claim
  end
end
return answer

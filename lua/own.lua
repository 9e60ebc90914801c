-- Extends the leases of an owner's runs, and fails a page of the runs whose owner is gone.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 owner        text
--   2 lease_ms     integer
--   3 live_ttl_ms  integer
--   4 feed_max     integer
--   5 ttl_ms       integer
--   6 limit        integer
--   7 runs         texts: the ids of the owner's runs
-- RETURNS
--   OK run_id*  those that this owner no longer owns, or that no longer run
-- WRITES base feed
-- COST 1 ZRANGEBYSCORE; a run: 1 HGETALL, 1 XREVRANGE, 1 ZREM, 1 ZADD; a lost one: as finish
-- include: time, refusals, keys, expiry, run, owners

local base, owner, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local live_ttl_ms, ttl_ms, feed = tonumber(ARGV[3]), tonumber(ARGV[5]), {key = KEYS[2], max = ARGV[4]}
local limit, now, answer = tonumber(ARGV[6]), server_ms(), {'OK'}
for i = 1, #ARGV - 6 do
  local run_id = ARGV[6 + i]
  local keys = keys_of_run(base, run_id)
  local run = try_run(keys)
  if run and run.state == 'running' and run.owner == owner then
    -- ZREM first, as in heartbeat.lua: else a server without free memory would let all leases run out.
    redis.call('ZREM', owners_key(base), run_id)
    redis.call('ZADD', owners_key(base), digits(now + lease_ms), run_id)
    touch_live(run, keys, now, live_ttl_ms)
  else
    answer[#answer + 1] = run_id
  end
end
try(fail_lost, base, feed, ttl_ms, now, limit)
return answer

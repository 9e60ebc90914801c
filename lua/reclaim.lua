-- Takes runs back whose lease has run out and queues them again.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 limit       integer
--   2 feed_max    integer
-- RETURNS
--   OK (run_id fate)*  the runs whose lease ran out and that are: queued again, or damaged
-- WRITES base feed
-- COST 1 ZRANGEBYSCORE; a run: as release
-- include: lifecycle

local base, feed, limit, feed_max = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local now, answer = server_ms(), {'OK'}
local due = redis.call('ZRANGEBYSCORE', leases_key(base), '-inf', digits(now), 'LIMIT', 0, limit)
for _, run_id in ipairs(due) do
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  redis.call('ZREM', leases_key(base), run_id)
  if run and run.state == 'running' then
    local writer = open_journal(run, run_id, keys.journal, feed, feed_max, digits(now))
    local changes = enter_state(run, run_id, keys, base, writer, 'pending',
      {'reason', 'lease_expired'})
    redis.call('HSET', keys.run, 'version', digits(writer.seq), 'last_ms', digits(writer.ms),
      unpack(changes))
  end
  if run and not TERMINAL[run.state] then
    -- At its old place, not behind all that came since.
    enqueue(base, run.target, run_id, run.created_ms)
    answer[#answer + 1], answer[#answer + 2] = run_id, 'queued'
  elseif damaged then
    answer[#answer + 1], answer[#answer + 2] = run_id, 'damaged'
  end
end
return answer

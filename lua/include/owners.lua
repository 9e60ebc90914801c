-- include: overdue
-- Runs that a store's own process executes, without a worker's claim: the owner says that it lives.

-- Ends a page of the runs whose owner is gone: it did not say that it lives, and nobody wrote.
local function fail_lost(base, feed, feed_max, ttl_ms, now, limit)
  local ended, due = {}, redis.call('ZRANGEBYSCORE', owners_key(base), '-inf', digits(now),
    'LIMIT', 0, limit)
  local function look_at(run_id)
    local run = try_run(keys_of_run(base, run_id))
    redis.call('ZREM', owners_key(base), run_id)
    if run and run.state == 'running' and run.owner and run.owner ~= '' then
      local until_ms = math.min(run.last_ms, now) + run.owner_lease_ms
      if until_ms > now then
        redis.call('ZADD', owners_key(base), digits(until_ms), run_id)
      else
        read_work(run)
        fail_run(base, feed, feed_max, ttl_ms, run, run_id, now, 'owner_lost')
        ended[#ended + 1] = run_id
      end
    end
  end
  for _, run_id in ipairs(due) do try(look_at, run_id) end
  return #ended, #due, ended
end

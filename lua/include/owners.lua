-- include: states, time, refusals, keys, run, index, journal, queue, overdue
-- Runs that the program with the store executes itself, without a claim: own.lua extends their leases.

-- Fails a page of the runs whose owner is gone: for the length of a lease it has neither extended the
-- run's lease nor written to the run.
-- Returns what fail_overdue returns.
local function fail_lost(base, feed, ttl_ms, now, limit)
  local found, due = {changed = 0, ended = {}, damaged = {}}, redis.call('ZRANGEBYSCORE',
    owners_key(base), '-inf', digits(now), 'LIMIT', 0, limit)
  found.seen = #due
  if #due == 0 then return found end
  check_state_rows(base)
  open_feed(feed)
  local function look_at(run_id)
    local run, damaged = try_run(keys_of_run(base, run_id))
    if damaged then fail_damaged(run_id, 'hash') end
    if run and run.state == 'running' and run.owner and run.owner ~= '' then
      local until_ms = math.min(run.last_ms, now) + run.owner_lease_ms
      if until_ms > now then
        redis.call('ZADD', owners_key(base), digits(until_ms), run_id)
      else
        read_work(run)
        fail_run(base, feed, ttl_ms, run, run_id, now, 'owner_lost')
        found.changed, found.ended[#found.ended + 1] = found.changed + 1, run_id
      end
    end
  end
  for _, run_id in ipairs(due) do
    redis.call('ZREM', owners_key(base), run_id)
    if not try(look_at, run_id) then found.damaged[#found.damaged + 1] = run_id end
  end
  return found
end

-- Does each part of the housekeeping, even if another part fails. note: called with each key of the
-- partition that has another type, and with each damaged run.
local function do_housekeeping(base, feed, ttl_ms, now, limit, note)
  local keys = {leases_key(base), owners_key(base), overdue_key(base), expiring_key(base)}
  for i, state in ipairs(all_states()) do keys[4 + i] = state_index_key(base, state) end
  for _, key in ipairs(keys) do
    if not try(redis.call, 'ZSCORE', key, '') then note(key, 'wrong_type') end
  end
  if not try(open_feed, feed) then note(feed.key, 'wrong_type') end
  local changed, most, ended = 0, 0, {}
  for _, part in ipairs({fail_lost, fail_overdue}) do
    local done, found = try(part, base, feed, ttl_ms, now, limit)
    if done then
      changed, most = changed + found.changed, math.max(most, found.seen)
      for _, run_id in ipairs(found.ended) do ended[#ended + 1] = run_id end
      for _, run_id in ipairs(found.damaged) do note(run_id, 'damaged') end
    end
  end
  local done, removed = try(remove_expired, base, now, limit)
  if done then changed, most = changed + removed, math.max(most, removed) end
  try(trim_feed, feed.key, now, ttl_ms)
  return changed, most, ended
end

-- include: cancel
-- Ends the live runs that nobody cares for any more, and removes what expiry left behind.
local OVERDUE_PER_CALL = 1

-- What was queued goes to the dead letters, for the reason; a cancel that was requested is kept.
local function fail_run(base, feed, feed_max, ttl_ms, run, run_id, now, why, reason)
  local keys = keys_of_run(base, run_id)
  local writer = open_journal(run, run_id, keys.journal, feed, feed_max, digits(now))
  if run.cancel_requested and run.claim ~= '' then
    let_go(run, run_id, keys, base, writer, 'worker_lost', {}, now, ttl_ms)
  elseif run.queued and reason then
    end_dead(run, run_id, keys, base, writer, reason, why, now, ttl_ms)
  else
    local ending = {state = 'failed', error = why, seal = true}
    end_run(run, run_id, keys, base, writer, ending, now, ttl_ms)
  end
  expire_ended(run, keys)
end

local function fail_neglected(base, feed, feed_max, ttl_ms, run, run_id, now)
  local why, reason = DEADLINE_TEXT, 'deadline_exceeded'
  if run.state ~= 'pending' or run.deadline_ms == 0 or run.deadline_ms > now then
    local seconds = digits(math.floor((now - math.min(run.last_ms, now)) / 1000))
    why, reason = 'nobody wrote to it for ' .. seconds .. ' seconds (live_ttl_seconds)', 'overdue'
  end
  fail_run(base, feed, feed_max, ttl_ms, run, run_id, now, why, reason)
end

-- The hash is gone. Another life of the id keeps its place in the queue and its leases.
local function remove_gone(base, row, run_id, reborn)
  local target, tenant, member = read_removal_row(row)
  leave_indexes(base, target, tenant, member)
  leave_states(base, member)
  if reborn then return end
  leave_queue(base, target, run_id)
  leave(leases_key(base), run_id)
  leave(owners_key(base), run_id)
end

-- Goes through a page of what may be overdue. A write moves live_until only in the hash, so a row
-- may be early; a damaged run is told, and left to audit and rebuild, which make its row again.
-- Returns how many it changed and saw, and the ids of those that it ended and of damaged ones.
local function fail_overdue(base, feed, feed_max, ttl_ms, now, limit)
  local found = {changed = 0, ended = {}, damaged = {}}
  local due = redis.call('ZRANGEBYSCORE', overdue_key(base), '-inf', digits(now), 'LIMIT', 0, limit)
  found.seen = #due
  if #due == 0 then return found end
  check_places(base)
  last_feed_id(feed)
  local function look_at(row, run_id)
    local run, damaged = try_run(keys_of_run(base, run_id))
    if damaged then fail_damaged(row, 'hash') end
    local _, _, member = read_removal_row(row)
    local same = run and index_member(run.created_ms, run_id) == member
    if same and not TERMINAL[run.state] then
      read_work(run)
      local at = overdue_at(run, run.state)
      if at > now then
        redis.call('ZADD', overdue_key(base), digits(at), row)
      elseif at > 0 then
        fail_neglected(base, feed, feed_max, ttl_ms, run, run_id, now)
        found.changed, found.ended[#found.ended + 1] = found.changed + 1, run_id
      end
    elseif not same then
      remove_gone(base, row, run_id, run)
      found.changed = found.changed + 1
    end
  end
  for _, row in ipairs(due) do
    redis.call('ZREM', overdue_key(base), row)
    local run_id = string.match(row, '^[^:]+:[^:]+:(.+)$')
    if run_id and not try(look_at, row, run_id) then
      found.damaged[#found.damaged + 1] = run_id
    end
  end
  return found
end

-- What every begin and every end of a run does of sweep, so that it needs nobody to call it.
local function sweep_a_little(base, feed, feed_max, ttl_ms, now)
  try(remove_expired, base, now, EXPIRED_PER_CALL)
  try(fail_overdue, base, feed, feed_max, ttl_ms, now, OVERDUE_PER_CALL)
end

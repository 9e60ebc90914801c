-- include: states, time, refusals, keys, failure_texts, expiry, run, index, journal, queue, ending, cancel
-- Ends live runs that got no write for too long, and removes the rows of expired runs.
local OVERDUE_PER_CALL = 1

-- Fails a run. A queued run goes to the dead letters, for the reason; one whose cancel was requested ends
-- cancelled instead.
local function fail_run(base, feed, ttl_ms, run, run_id, now, why, reason)
  local keys = keys_of_run(base, run_id)
  local writer = open_journal(run, run_id, keys.journal, feed, now)
  if run.cancel_requested and run.claim ~= '' then
    cancel_or_wait_again(run, run_id, keys, base, writer, 'worker_lost', {}, now, ttl_ms)
  elseif run.queued and reason then
    end_dead(run, run_id, keys, base, writer, reason, why, now, ttl_ms)
  else
    local ending = {state = 'failed', error = why, seal = true}
    end_run(run, run_id, keys, base, writer, ending, now, ttl_ms)
  end
  expire_ended(run, keys)
end

local function fail_neglected(base, feed, ttl_ms, run, run_id, now)
  local why, reason = deadline_text(), 'deadline_exceeded'
  if run.state ~= 'pending' or run.deadline_ms == 0 or run.deadline_ms > now then
    local seconds = digits(math.floor((now - math.min(run.last_ms, now)) / 1000))
    why, reason = string.gsub(neglected_text(), '{seconds}', seconds), 'overdue'
  end
  fail_run(base, feed, ttl_ms, run, run_id, now, why, reason)
end

-- Removes the rows of a run whose hash is gone. is_reused: another run has this id now, and keeps its rows
-- in queue and leases.
local function remove_gone(base, row, run_id, is_reused)
  local target, tenant, member = read_removal_row(row)
  remove_from_indexes(base, target, tenant, member)
  remove_from_states(base, member)
  if is_reused then return end
  remove_from_queue(base, target, run_id)
  remove_member(leases_key(base), run_id)
  remove_member(owners_key(base), run_id)
end

-- Fails the runs of overdue whose time has come, at most limit of them. Writes move live_until in the hash
-- but not the row in overdue, so a row may come too early: then it moves to the hash's time, and the run
-- goes on. The row of a damaged run is removed; rebuild writes it again.
-- Returns a table: seen (how many rows came), changed (how many runs ended or lost their last rows), ended
-- and damaged (ids of runs).
local function fail_overdue(base, feed, ttl_ms, now, limit)
  local found = {changed = 0, ended = {}, damaged = {}}
  local due = redis.call('ZRANGEBYSCORE', overdue_key(base), '-inf', now, 'LIMIT', 0, limit)
  found.seen = #due
  if #due == 0 then return found end
  check_state_rows(base)
  open_feed(feed)
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
        fail_neglected(base, feed, ttl_ms, run, run_id, now)
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

-- Does a small part of what sweep.lua does, whenever a run begins or ends, so that a store whose
-- programs never call sweep is cleaned, too. Once it has found nothing, it does nothing until the call ends.
local function sweep_a_little(base, feed, ttl_ms, now)
  if CALL.is_swept then return end
  local removes, removed = try(remove_expired, base, now, EXPIRED_PER_CALL)
  local fails, found = try(fail_overdue, base, feed, ttl_ms, now, OVERDUE_PER_CALL)
  CALL.is_swept = not (removes and removed > 0 or fails and found.seen > 0)
end

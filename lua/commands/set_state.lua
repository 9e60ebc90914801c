-- Changes a run's state as the transition table allows; an end without a closing event leaves the
-- run unsealed.
--
-- ARGV
--   1 state        text
--   2 owner        text or ''
--   3 owner_lease_ms integer
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
-- WRITES run journal
-- COST 1 HGETALL, 1 XREVRANGE, 8 ZSCORE, 2 XADD, 1 HSET, 2 ZREM, 2 ZADD; at an end sweep_a_little
-- include: states, time, keys, expiry, run, events, index, journal, queue, lifecycle, ending, cancel, overdue

local function set_state(run_id, at)
  local state, owner, owner_lease_ms = unpack(ARGV, at, at + 2)
  local base, keys = CALL.base, keys_of_run(CALL.base, run_id)
  local run = read_whole_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if TERMINAL[run.state] or run.state == state then return 'NO ' .. run.state end

  local now = server_ms()
  read_work(run)
  check_journal(run, keys.journal)
  check_state_rows(base, {owners_key(base)})
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  local never_again = state == 'pending' and run.cancel_requested
  if TERMINAL[state] or never_again then
    if never_again then
      local ending = {details = {}, stopped = 'pending'}
      end_cancelled(run, run_id, keys, base, writer, ending, now, CALL.ttl_ms)
    else
      local ending = {state = state, error = '', seal = run.closing}
      end_run(run, run_id, keys, base, writer, ending, now, CALL.ttl_ms)
    end
    expire_ended(run, keys)
    sweep_a_little(base, CALL.feed, CALL.ttl_ms, now)
    return 'OK ' .. digits(writer.seq)
  end
  if state == 'pending' then
    wait_again(run, run_id, base, writer, {due_ms = 0, error = ''}, now)
  else
    local changes = enter_state(run, run_id, base, writer, state, {})
    if owner ~= '' then
      set_field(changes, 'owner', owner)
      set_field(changes, 'owner_lease_ms', owner_lease_ms)
      redis.call('ZADD', owners_key(base), digits(now + tonumber(owner_lease_ms)), run_id)
    end
    write_head(run, writer, changes)
  end
  touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  return 'OK ' .. digits(writer.seq)
end

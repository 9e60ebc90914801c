-- Requests that a run end cancelled: a waiting run ends at once, the worker of a running one is woken.
--
-- ARGV
--   1 reason       text or ''
--   2 host         text or '' where it was requested
-- RETURNS
--   OK state                the state afterwards
--   NO state
--   NOT_FOUND
-- WRITES run journal
-- COST 1 HGETALL, 1 XREVRANGE, 7 ZSCORE, 2 XADD, 1 HSET; 1 XADD and PEXPIREAT for the worker; or as finish
-- include: states, time, refusals, keys, expiry, run, events, index, journal, queue, cancel, control

local function request_cancel(run_id, at)
  local reason, host = ARGV[at], ARGV[at + 1]
  local base, keys = CALL.base, keys_of_run(CALL.base, run_id)
  local run = read_whole_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if TERMINAL[run.state] then return 'NO ' .. run.state end
  read_work(run)
  if run.cancel_requested then return 'OK ' .. run.state end

  local now = server_ms()
  check_journal(run, keys.journal)
  check_state_rows(base)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  local requested = {'type', 'run.cancel_requested', 'attempt', digits(run.attempt)}
  local changes = {'cancel_requested', digits(now)}
  if host ~= '' then set_field(requested, 'host', host) end
  if reason ~= '' then
    set_field(requested, 'reason', reason)
    set_field(changes, 'cancel_reason', reason)
  end
  set_field(requested, 'at', digits(now))
  -- A request races with a claim. Both are scripts, so one of them is first. Before the claim, the run
  -- is pending and ends here: no worker ever sees it. After the claim, the run is running and the
  -- request stands in its hash: finish, release and tend read it there, and end the run cancelled. A
  -- request that only woke the worker would be lost with the message, or with the worker.
  if run.state == 'pending' then
    local ending = {events = {requested}, changes = changes, details = {}, stopped = 'pending'}
    end_cancelled(run, run_id, keys, base, writer, ending, now, CALL.ttl_ms)
    expire_ended(run, keys)
    return 'OK cancelled'
  end
  if run.claim ~= '' then try(wake_worker, base, run, run_id, now) end
  add_entry(writer, requested)
  write_head(run, writer, changes)
  touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  return 'OK ' .. run.state
end

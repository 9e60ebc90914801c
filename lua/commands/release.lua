-- Hands a running run back to its queue, or ends it if its cancel was requested.
--
-- ARGV
--   1 claim        text
--   2 reason       text
--   3 delay_ms     integer
--   4 failure      text or ''
-- RETURNS
--   OK state                the state afterwards
--   NO state
--   NOT_FOUND
--   FENCED
-- WRITES run journal
-- COST 1 HGETALL, 1 XREVRANGE, 7 ZSCORE, 3 XADD, 1 HSET, 2 ZREM, 2 ZADD; or as finish
-- include: time, keys, expiry, run, index, journal, queue, cancel

local function release(run_id, at)
  local claim, reason, delay_ms, failure = unpack(ARGV, at, at + 3)
  local base, keys = CALL.base, keys_of_run(CALL.base, run_id)
  local run = read_whole_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if claim == '' or claim ~= run.claim then return 'FENCED' end
  if run.state ~= 'running' then return 'NO ' .. run.state end

  local now = server_ms()
  read_work(run)
  check_journal(run, keys.journal)
  check_state_rows(base)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  -- A release and a cancel race: if the request came first, the run must end here. Back in the queue
  -- it would be started once more, although its caller was answered that it is being cancelled. If the
  -- release comes first, the request finds a waiting run and ends it at once. Both are one script, so
  -- no claim can take the run between the check and the write.
  local delay = tonumber(delay_ms)
  local p = {reason = reason, due_ms = delay > 0 and now + delay or 0, error = failure}
  if cancel_or_wait_again(run, run_id, keys, base, writer, 'handler', p, now, CALL.ttl_ms) then
    expire_ended(run, keys)
    return 'OK cancelled'
  end
  touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  live_until_due(run, keys, CALL.live_ttl_ms)
  return 'OK pending'
end

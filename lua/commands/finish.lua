-- Ends a run in one step: result, last event, terminal state, seal, and one expiry for all keys.
--
-- ARGV
--   1 state         text
--   2 claim         text or ''
--   3 failure       text or ''
--   4 result        text or ''
--   5 size          integer
--   6 sha256        text
--   7 dead          text or '' why it goes to the dead letters
--   8 stopped       text or '' what made a cancelled execution stop
--   9 count         integer
--   10 events       texts, see include/events.lua
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   FENCED
-- WRITES run journal result
-- COST 1 HGETALL, 1 EXISTS, 1 XREVRANGE, 4 ZSCORE, 2 to 6 XADD, 1 HSET, 1 SET, 3 ZREM, 2 ZADD, and sweep_a_little
-- include: states, time, keys, ahead, expiry, run, events, index, journal, queue, lifecycle, ending, overdue

local function finish(run_id, at)
  local state, claim, failure, result, size, sha256, dead, stopped, count = unpack(ARGV, at, at + 8)
  local base, run = CALL.base, read_whole_run(run_key(CALL.base, run_id))
  if not run then return 'NOT_FOUND' end
  if claim ~= '' and claim ~= run.claim then return 'FENCED' end
  if TERMINAL[run.state] then return 'NO ' .. run.state end

  local now, events = server_ms(), read_events(at + 9, tonumber(count))
  if CALL.has_producers == nil then CALL.has_producers = find_producers() end
  local keys = keys_it_has(base, run_id, run, CALL.has_producers)
  read_work(run)
  check_journal(run, keys.journal)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  if claim ~= '' and run.cancel_requested then
    -- A cancel and an end race. The request's caller was answered that the run will end cancelled, and
    -- the worker may send its result before it learns of the request. Scripts run one after the other,
    -- so the request was either before this end or finds a run that has ended. If it was before, the
    -- run ends cancelled whatever the worker sends: otherwise the caller of the request would see a
    -- run end completed after all. The handler's result and events are dropped with its state.
    if stopped == '' then stopped = 'handler' end
    if state ~= 'cancelled' then
      state, failure, result, events, dead = 'cancelled', '', '', {}, ''
    end
  end
  check_end_rows(base, run.state, state)
  local ending = {state = state, error = failure, seal = true, events = {}, changes = {},
    details = claim ~= '' and execution(run) or {}, dead = dead ~= '' and dead or nil}
  if stopped ~= '' then set_field(ending.details, 'stopped', stopped) end
  if dead ~= '' then set_field(ending.details, 'reason', dead) end
  if result ~= '' then
    ending.events[1] = {'type', 'run.result', 'size', size, 'sha256', sha256}
    ending.changes = {'result_size', size, 'result_sha256', sha256}
  end
  for _, fields in ipairs(events) do
    if claim ~= '' then set_field(fields, 'attempt', digits(run.attempt)) end
    ending.events[#ending.events + 1] = fields
  end
  end_run(run, run_id, keys, base, writer, ending, now, CALL.ttl_ms)
  if result ~= '' then
    set_payload(result_key(base, run_id), result, run.expire_at)
    keys.result = nil
  end
  expire_ended(run, keys)
  sweep_a_little(base, CALL.feed, CALL.ttl_ms, now)
  return 'OK ' .. digits(writer.seq)
end

-- Seals a run that ended without a closing event, once the time for a closing event is over.
--
-- ARGV
-- RETURNS
--   OK version
--   NO state
--   WAIT milliseconds
--   NOT_FOUND
-- WRITES run journal
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD, 1 HSET, 6 PEXPIREAT
-- include: states, time, keys, expiry, run, journal

local function seal(run_id)
  local keys = keys_of_run(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if not TERMINAL[run.state] then return 'NO ' .. run.state end
  if run.seal then return 'OK ' .. digits(run.version) end
  local now = server_ms()
  local ended_ms = count_of(keys.run, 'ended_ms', redis.call('HGET', keys.run, 'ended_ms'), 0)
  local remaining = ended_ms + CALL.late_ms - now
  if remaining > 0 then return 'WAIT ' .. digits(remaining) end

  check_journal(run, keys.journal)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  add_entry(writer, {'type', 'run.sealed', 'seal', '1'})
  write_head(run, writer, {'seal', digits(writer.seq)})
  expire_ended(run, keys)
  return 'OK ' .. digits(writer.seq)
end

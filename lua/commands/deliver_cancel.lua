-- Records that an execution has learnt of the requested cancel; only the first call writes.
--
-- ARGV
--   1 claim        text
-- RETURNS
--   OK version
--   NO state                no cancel was requested
--   NOT_FOUND
--   FENCED
-- WRITES run journal
-- COST 1 HGETALL, 1 XREVRANGE, 2 XADD, 1 HSET
-- include: time, keys, expiry, run, events, journal, queue, lifecycle

local function deliver_cancel(run_id, at)
  local claim = ARGV[at]
  local keys = keys_of_run(CALL.base, run_id)
  local run = read_whole_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if claim == '' or claim ~= run.claim then return 'FENCED' end
  read_work(run)
  if not run.cancel_requested then return 'NO ' .. run.state end
  if run.cancel_delivered then return 'OK ' .. digits(run.version) end

  local now = server_ms()
  check_journal(run, keys.journal)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  local fields, details = {'type', 'run.cancel_delivered'}, execution(run)
  for i = 1, #details do fields[#fields + 1] = details[i] end
  set_field(fields, 'at', digits(now))
  add_entry(writer, fields)
  write_head(run, writer, {'cancel_delivered', digits(now)})
  touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  return 'OK ' .. digits(writer.seq)
end

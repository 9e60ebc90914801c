-- Stores a run's result: any time before the end, and once after it if it has none.
--
-- ARGV
--   1 result       text
--   2 size         integer
--   3 sha256       text
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
-- WRITES run journal result
-- COST 1 HMGET, 1 XREVRANGE, 2 XADD, 1 HSET, 1 SET
-- include: states, time, keys, expiry, run, events, journal

local function set_result(run_id, at)
  local result, size, sha256 = unpack(ARGV, at, at + 2)
  local keys = keys_of_run(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  local ended = TERMINAL[run.state]
  if ended and (run.state == 'cancelled' or redis.call('HEXISTS', keys.run, 'result_size') == 1) then
    return 'NO ' .. run.state
  end

  check_journal(run, keys.journal)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, server_ms())
  local fields = {'type', 'run.result', 'size', size, 'sha256', sha256}
  if run.seal then set_field(fields, 'late', '1') end
  add_entry(writer, fields)
  set_payload(keys.result, result, deadline_of(run))
  write_head(run, writer, {'result_size', size, 'result_sha256', sha256})
  if ended then
    expire_ended(run, keys)
  else
    touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  end
  return 'OK ' .. digits(writer.seq)
end

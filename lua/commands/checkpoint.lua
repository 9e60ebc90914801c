-- Stores a value of an execution for the next execution; it expires with the run.
--
-- ARGV
--   1 claim        text
--   2 value        text
--   3 size         integer
--   4 sha256       text
-- RETURNS
--   OK version
--   NOT_FOUND
--   FENCED
-- WRITES run journal checkpoint
-- COST 1 HMGET, 1 XREVRANGE, 2 XADD, 1 HSET, 1 SET
-- include: time, keys, expiry, run, journal, snapshot

local function checkpoint(run_id, at)
  local claim, value, size, sha256 = unpack(ARGV, at, at + 3)
  local keys = keys_of_run(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if claim == '' or claim ~= run.claim then return 'FENCED' end

  check_journal(run, keys.journal)
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, CALL.now_ms)
  add_entry(writer, {'type', 'run.checkpoint', 'attempt', digits(run.attempt), 'size', size,
    'sha256', sha256})
  set_payload(keys.checkpoint, value, deadline_of(run))
  local changes = {'checkpoint_size', size, 'checkpoint_sha256', sha256}
  write_changes(run, keys, writer, changes, CALL.max_events, CALL.now_ms)
  touch_live(run, keys, CALL.now_ms, CALL.live_ttl_ms)
  return 'OK ' .. digits(writer.seq)
end

-- Replaces a run's counters; the journal gets them at most once a second.
--
-- ARGV
--   1 total        integer
--   2 completed    integer
--   3 failed       integer
--   4 running      integer
--   5 claim        text or ''
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   FENCED
-- WRITES run journal
-- COST 1 HGET, 1 HMGET, 1 HSET; once a second 2 XADD
-- include: states, time, keys, expiry, run, events, journal, snapshot

local function update_progress(run_id, at)
  local total, completed, failed, running, claim = unpack(ARGV, at, at + 4)
  local now_ms, moment = CALL.now_ms, digits(CALL.now_ms)
  local keys = keys_of_events(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if claim ~= '' and claim ~= run.claim then return 'FENCED' end
  if TERMINAL[run.state] then return 'NO ' .. run.state end

  local changes = {'progress_total', total, 'progress_completed', completed,
    'progress_failed', failed, 'progress_running', running, 'progress_dirty', '1'}
  local live_until = touch_due(run, now_ms, CALL.live_ttl_ms)
  local journalled = count_of(keys.run, 'progress_ms', redis.call('HGET', keys.run, 'progress_ms'))
  local version = run.version
  if not journalled or math.abs(now_ms - journalled) >= PROGRESS_INTERVAL_MS then
    local writer = open_journal(run, run_id, keys.journal, CALL.feed, now_ms)
    add_entry(writer, {'type', 'run.progress', 'total', total, 'completed', completed,
      'failed', failed, 'running', running, 'at', moment})
    changes[#changes] = ''
    set_field(changes, 'progress_ms', moment)
    write_changes(run, keys, writer, changes, CALL.max_events, now_ms)
    version = writer.seq
  else
    redis.call('HSET', keys.run, unpack(changes))
  end
  if live_until then move_live(run, keys_of_run(CALL.base, run_id), live_until) end
  return 'OK ' .. digits(version)
end

-- Appends events, also after the end of the run. Before the seal an event is streamed, and a closing
-- event seals; after the seal an event is stored as a late entry.
--
-- ARGV
--   1 count        integer
--   2 events       groups: size integer, event texts
-- RETURNS
--   NOT_FOUND
--   each OK version
-- WRITES run journal
-- COST 1 HMGET, 2 XADD an event, 1 HSET; one event in 32 an XTRIM
-- include: states, time, keys, expiry, run, events, journal, snapshot

-- Seals a run that ended, if the time for its closing event is over.
local function seal_when_due(run, writer, changes)
  local ended_ms = tonumber(redis.call('HGET', run.key, 'ended_ms') or 0)
  if not ended_ms or ended_ms < 0 or ended_ms > MOST then fail_damaged(run.key, 'ended_ms') end
  if writer.ms < ended_ms + CALL.late_ms then return end
  add_entry(writer, {'type', 'run.sealed', 'seal', '1'})
  run.seal = digits(writer.seq)
  set_field(changes, 'seal', run.seal)
end

local function push_event(run_id, at)
  local keys = keys_of_events(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  local ended, changes, answers = TERMINAL[run.state], {}, {}
  local live_until = not ended and touch_due(run, CALL.now_ms, CALL.live_ttl_ms)
  local moment = ended and server_ms() or CALL.now_ms
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, moment)
  if ended and not run.seal then seal_when_due(run, writer, changes) end
  local count = tonumber(ARGV[at])
  at = at + 1
  for i = 1, count do
    local list, first, last, late = ARGV, at + 1, at + ARGV[at], run.seal
    at = last + 1
    if late then
      list = {unpack(ARGV, first, last)}
      set_field(list, 'late', '1')
      first, last = 1, #list
    elseif ended and is_closing(run.target, list, first, last) then
      list = {unpack(ARGV, first, last)}
      set_field(list, 'seal', '1')
      first, last = 1, #list
      run.seal = digits(writer.seq + 1)
      set_field(changes, 'seal', run.seal)
    end
    add_entry(writer, list, first, last)
    if not late then note_event(run, writer.seq, changes, list, first, last) end
    answers[i] = 'OK ' .. digits(writer.seq)
  end
  local version = writer.seq
  write_changes(run, keys, writer, changes, CALL.max_events, CALL.now_ms)
  if writer.seq > version then answers[count] = 'OK ' .. digits(writer.seq) end
  if ended then
    expire_ended(run, keys_of_run(CALL.base, run_id))
  elseif live_until then
    move_live(run, keys_of_run(CALL.base, run_id), live_until)
  end
  return table.concat(answers, '|')
end

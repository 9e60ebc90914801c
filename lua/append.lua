-- Appends batches of events to a run that has not ended: of each batch all events, or none.
--
-- KEYS
--   1 run        hash    <prefix>:{p}:run:<run_id>
--   2 journal    stream  <prefix>:{p}:journal:<run_id>
--   3 producers  hash    <prefix>:{p}:producers:<run_id>
--   4 input      string  <prefix>:{p}:input:<run_id>
--   5 result     string  <prefix>:{p}:result:<run_id>
--   6 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 run_id       text
--   2 producer     text
--   3 n            integer
--   4 now_ms       integer
--   5 feed_max     integer
--   6 live_ttl_ms  integer
--   7 max_events   integer
--   8 batches      integer
--   9 writes       groups: expected integer or '', claim text or '', count integer, events texts
-- RETURNS
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
--   each OK version
--   each FENCED -
--   each TERMINAL state
--   each WRONG_VERSION version
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD an event, 2 HSET; one event in 32 an XTRIM
-- include: states, time, refusals, keys, producer, expiry, run, events, journal, snapshot

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events, batches = tonumber(ARGV[7]), tonumber(ARGV[8])

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local writer, changes, answer, last_ok, version = nil, {}, {}, nil, run.version
local live_until = touch_due(run, now_ms, live_ttl_ms)
if max_events > 0 and version + #ARGV - run.snapshot >= max_events / 2 then
  check_may_call('HGETALL', keys.run)
  check_may_call('XTRIM', keys.journal, 'MAXLEN', '1')
end

-- No local functions from here on: Lua would create them again in every call, and this is a hot path.
local at = 9
for i = 1, 2 * batches, 2 do
  local expected, claim, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local tag, value = nil, nil
  at = at + 3
  -- Each batch has a caller of its own: one that is refused must not stop the others.
  if claim ~= '' and claim ~= run.claim then
    tag, value = 'FENCED', '-'
  elseif TERMINAL[run.state] then
    tag, value = 'TERMINAL', run.state
  elseif expected ~= '' and tonumber(expected) ~= version then
    tag, value = 'WRONG_VERSION', digits(version)
  elseif not writer then
    writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, ARGV[4])
  end
  for _ = 1, count do
    local list, first, last = ARGV, at + 1, at + ARGV[at]
    at = last + 1
    if not tag then
      if claim ~= '' then
        list = {unpack(ARGV, first, last)}
        set_field(list, 'attempt', digits(run.attempt))
        first, last = 1, #list
      end
      add_entry(writer, list, first, last)
      note_event(run, writer.seq, changes, list, first, last)
    end
  end
  if not tag then
    version, last_ok = writer.seq, i + 1
    tag, value = 'OK', digits(version)
  end
  answer[i], answer[i + 1] = tag, value
end
if writer then
  commit(run, keys, writer, changes, max_events, now_ms)
  -- If commit added a snapshot, its entry is the run's last one. The last batch that was written answers
  -- with that version: its caller may pass it as the next expected version.
  if writer.seq > version then answer[last_ok] = digits(writer.seq) end
  if live_until then move_live(run, keys, live_until) end
end
return record_answer(keys.producers, producer, n, deadline_of(run), answer)

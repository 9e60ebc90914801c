-- Appends events, also after the end: before the seal an event is streamed and may seal, after
-- it it is kept as a late entry.
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
--   9 writes       groups: late_ms integer, event texts
-- RETURNS
--   NOT_FOUND
--   DROPPED                 an older call of this producer; nobody waits for it
--   each OK version
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET
-- include: states, time, keys, producer, run, journal, events, snapshot

local keys = given_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events = tonumber(ARGV[7])
local batches, late_ms = tonumber(ARGV[8]), tonumber(ARGV[9])

local again = repeated(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return remember(keys.producers, producer, n, ARGV[4], deadline_of(run), answer)
end

local ended, ms, changes, answer = TERMINAL[run.state], now_ms, {}, {}
if ended then ms = server_ms() end
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, ms)

local function seal_if_late()
  local ended_ms = tonumber(redis.call('HGET', keys.run, 'ended_ms') or 0)
  if ms < ended_ms + late_ms then return end
  add_entry(writer, {'type', 'run.sealed', 'seal', '1'})
  run.seal = digits(writer.seq)
  set_field(changes, 'seal', run.seal)
end

local function push(event)
  if ended and not run.seal then seal_if_late() end
  local late = run.seal
  if late then
    set_field(event, 'late', '1')
  elseif ended and is_closing(event, run.target) then
    set_field(event, 'seal', '1')
    run.seal = digits(writer.seq + 1)
    set_field(changes, 'seal', run.seal)
  end
  add_entry(writer, event)
  if not late then note_event(run, event, writer.seq, changes) end
end

local at = 9
for _ = 1, batches do
  local events, after = read_events(at + 1, 1)
  at = after
  push(events[1])
  answer[#answer + 1], answer[#answer + 2] = 'OK', digits(writer.seq)
end
commit(run, keys, writer, changes, max_events, now_ms)
answer[#answer] = digits(writer.seq)
answer = reply(answer)
if ended then expire_ended(run, keys) else touch_live(run, keys, now_ms, live_ttl_ms) end
return answer

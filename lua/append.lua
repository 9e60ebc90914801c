-- Appends events to a run that has not ended: all of them, or none.
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
--   7 expected     integer or ''
--   8 claim        text or ''
--   9 count        integer
--   10 events       texts, see include/events.lua
-- RETURNS
--   OK version
--   NOT_FOUND
--   FENCED
--   TERMINAL state
--   WRONG_VERSION version
--   DROPPED                 an older call of this producer; nobody waits for it
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD an event, 2 HSET
-- include: states, time, keys, producer, run, journal, events

local keys = given_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local expected, claim = ARGV[7], ARGV[8]
local events = read_events(10, tonumber(ARGV[9]))

local again = repeated(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return remember(keys.producers, producer, n, ARGV[4], deadline_of(run), answer)
end
if claim ~= '' and claim ~= run.claim then return reply({'FENCED'}) end
if TERMINAL[run.state] then return reply({'TERMINAL', run.state}) end
if expected ~= '' and tonumber(expected) ~= run.version then
  return reply({'WRONG_VERSION', digits(run.version)})
end

local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, now_ms)
local changes = {}
for _, fields in ipairs(events) do
  if claim ~= '' then set_field(fields, 'attempt', digits(run.attempt)) end
  add_entry(writer, fields)
  note_event(run, fields, writer.seq, changes)
end
local version = digits(writer.seq)
redis.call('HSET', keys.run, 'version', version, 'last_ms', digits(writer.ms), unpack(changes))
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', version})

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
--   DROPPED                 an older call of this producer; nobody waits for it
--   each OK version
--   each FENCED -
--   each TERMINAL state
--   each WRONG_VERSION version
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD an event, 2 HSET
-- include: states, time, keys, producer, run, journal, events, snapshot

local keys = given_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events, batches = tonumber(ARGV[7]), tonumber(ARGV[8])

local again = repeated(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return remember(keys.producers, producer, n, ARGV[4], deadline_of(run), answer)
end

local writer, changes, answer, last_ok = nil, {}, {}, nil

-- The refusal of one batch leaves the others as they are.
local function refusal(expected, claim)
  if claim ~= '' and claim ~= run.claim then return 'FENCED', '-' end
  if TERMINAL[run.state] then return 'TERMINAL', run.state end
  local version = writer and writer.seq or run.version
  if expected ~= '' and tonumber(expected) ~= version then
    return 'WRONG_VERSION', digits(version)
  end
end

local at = 9
for _ = 1, batches do
  local expected, claim, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local events, after = read_events(at + 3, count)
  at = after
  local tag, value = refusal(expected, claim)
  if not tag then
    writer = writer or open_journal(run, run_id, keys.journal, KEYS[6], feed_max, now_ms)
    for _, fields in ipairs(events) do
      if claim ~= '' then set_field(fields, 'attempt', digits(run.attempt)) end
      add_entry(writer, fields)
      note_event(run, fields, writer.seq, changes)
    end
    tag, value = 'OK', digits(writer.seq)
  end
  answer[#answer + 1], answer[#answer + 2] = tag, value
  if tag == 'OK' then last_ok = #answer end
end
if writer then
  commit(run, keys, writer, changes, max_events, now_ms)
  -- A snapshot's entry is in the version of whoever wrote last.
  answer[last_ok] = digits(writer.seq)
  touch_live(run, keys, now_ms, live_ttl_ms)
end
return reply(answer)

-- Replaces a run's counters; the journal gets them at most once a second.
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
--   8 total        integer
--   9 completed    integer
--   10 failed       integer
--   11 running      integer
--   12 claim        text or ''
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed
-- COST 2 HGET, 1 HMGET, 2 HSET; once a second 1 XREVRANGE, 2 XADD
-- include: states, time, keys, producer, expiry, run, events, journal, snapshot

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events = tonumber(ARGV[7])
local total, completed, failed, running, claim = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if claim ~= '' and claim ~= run.claim then return reply({'FENCED'}) end
if TERMINAL[run.state] then return reply({'NO', run.state}) end

local changes = {'progress_total', total, 'progress_completed', completed,
  'progress_failed', failed, 'progress_running', running, 'progress_dirty', '1'}
local journalled = count_of(keys.run, 'progress_ms', redis.call('HGET', keys.run, 'progress_ms'))
local version = digits(run.version)
if not journalled or math.abs(now_ms - journalled) >= PROGRESS_INTERVAL_MS then
  local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, ARGV[4])
  add_entry(writer, {'type', 'run.progress', 'total', total, 'completed', completed,
    'failed', failed, 'running', running, 'at', ARGV[4]})
  changes[#changes] = ''
  set_field(changes, 'progress_ms', ARGV[4])
  commit(run, keys, writer, changes, max_events, now_ms)
  version = digits(writer.seq)
else
  redis.call('HSET', keys.run, unpack(changes))
end
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', version})

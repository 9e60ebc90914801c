-- Stores a value of an execution for the next execution; it expires with the run.
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
--   8 claim        text
--   9 value        text
--   10 size         integer
--   11 sha256       text
-- RETURNS
--   OK version
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET, 1 SET
-- include: time, keys, producer, expiry, run, journal, snapshot

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events = tonumber(ARGV[7])
local claim, value, size, sha256 = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if claim == '' or claim ~= run.claim then return reply({'FENCED'}) end

check_journal(run, keys.journal)
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, ARGV[4])
add_entry(writer, {'type', 'run.checkpoint', 'attempt', digits(run.attempt), 'size', size,
  'sha256', sha256})
redis.call('SET', keys.checkpoint, value)
local deadline = deadline_of(run)
if deadline > 0 then redis.call('PEXPIREAT', keys.checkpoint, digits(deadline)) end
commit(run, keys, writer, {'checkpoint_size', size, 'checkpoint_sha256', sha256}, max_events, now_ms)
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', digits(writer.seq)})

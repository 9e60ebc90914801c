-- Takes a running run back from its worker and queues it again.
--
-- KEYS
--   1 run        hash    <prefix>:{p}:run:<run_id>
--   2 journal    stream  <prefix>:{p}:journal:<run_id>
--   3 producers  hash    <prefix>:{p}:producers:<run_id>
--   4 input      string  <prefix>:{p}:input:<run_id>
--   5 result     string  <prefix>:{p}:result:<run_id>
--   6 feed       stream  <prefix>:{p}:feed
--   7 base       prefix  <prefix>:{p}
-- ARGV
--   1 run_id       text
--   2 producer     text
--   3 n            integer
--   4 now_ms       integer
--   5 feed_max     integer
--   6 live_ttl_ms  integer
--   7 max_events   integer
--   8 claim        text
--   9 reason       text
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer; nobody waits for it
-- WRITES run journal producers feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 3 XADD, 2 HSET, 4 zset moves
-- include: lifecycle

local keys = given_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local claim, reason = ARGV[8], ARGV[9]

local again = repeated(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return remember(keys.producers, producer, n, deadline_of(run), answer)
end
if claim ~= run.claim then return reply({'FENCED'}) end
if run.state ~= 'running' then return reply({'NO', run.state}) end

local now = server_ms()
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
local changes = enter_state(run, run_id, keys, KEYS[7], writer, 'pending', {'reason', reason})
local version = digits(writer.seq)
redis.call('HSET', keys.run, 'version', version, 'last_ms', digits(writer.ms), unpack(changes))
redis.call('ZREM', leases_key(KEYS[7]), run_id)
-- At its old place, not behind all that came since.
enqueue(KEYS[7], run.target, run_id, run.created_ms)
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', version})

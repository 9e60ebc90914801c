-- Stores a run's result: any time before the end, and once after it if it has none.
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
--   8 result        text
--   9 result_size   integer
--   10 result_sha256 text
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers result feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET, 1 SET
-- include: states, time, keys, producer, expiry, run, events, journal

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local result, size, sha256 = ARGV[8], ARGV[9], ARGV[10]

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
local ended = TERMINAL[run.state]
if ended and (run.state == 'cancelled' or redis.call('HEXISTS', keys.run, 'result_size') == 1) then
  return reply({'NO', run.state})
end

check_journal(run, keys.journal)
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(server_ms()))
local fields = {'type', 'run.result', 'size', size, 'sha256', sha256}
if run.seal then set_field(fields, 'late', '1') end
add_entry(writer, fields)
local version = digits(writer.seq)
redis.call('SET', keys.result, result)
write_head(run, writer, {'result_size', size, 'result_sha256', sha256})
local answer = reply({'OK', version})
if ended then
  expire_ended(run, keys)
elseif run.live_until > 0 then
  expire_keys({keys.result}, deadline_of(run))
  touch_live(run, keys, now_ms, live_ttl_ms)
end
return answer

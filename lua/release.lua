-- Hands a running run back to its queue, or ends it if its cancel was requested.
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
--   10 delay_ms     integer
--   11 error        text or ''
--   12 ttl_ms       integer
-- RETURNS
--   OK state                the state afterwards
--   NO state
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 3 XADD, 2 HSET, 5 zset moves, or as finish
-- include: time, keys, producer, expiry, run, index, journal, queue, cancel

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local claim, reason, delay_ms = ARGV[8], ARGV[9], tonumber(ARGV[10])
local failure, ttl_ms = ARGV[11], tonumber(ARGV[12])

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if claim == '' or claim ~= run.claim then return reply({'FENCED'}) end
if run.state ~= 'running' then return reply({'NO', run.state}) end

local now = server_ms()
read_work(run)
check_journal(run, keys.journal)
check_state_rows(KEYS[7])
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
-- A release and a cancel race: if the request came first, the run must end here. Back in the queue
-- it would be started once more, although its caller was answered that it is being cancelled. If the
-- release comes first, the request finds a waiting run and ends it at once. Both are one script, so
-- no claim can take the run between the check and the write.
local p = {reason = reason, due_ms = delay_ms > 0 and now + delay_ms or 0, error = failure}
if cancel_or_wait_again(run, run_id, keys, KEYS[7], writer, 'handler', p, now, ttl_ms) then
  local answer = reply({'OK', 'cancelled'})
  expire_ended(run, keys)
  return answer
end
touch_live(run, keys, now_ms, live_ttl_ms)
live_until_due(run, keys, live_ttl_ms)
return reply({'OK', 'pending'})

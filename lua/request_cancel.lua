-- Requests that a run end cancelled: a waiting run ends at once, the worker of a running one is woken.
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
--   8 reason       text or ''
--   9 ttl_ms       integer
--   10 host         text or '' the host of the caller
-- RETURNS
--   OK state                the state afterwards
--   NO state
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 3 XADD, 2 HSET, or as finish
-- include: states, time, refusals, keys, producer, expiry, run, events, index, journal, queue, cancel

local CONTROL_MESSAGES, CONTROL_MS = 100, 3600000
local keys, base = passed_run_keys(), KEYS[7]
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local reason, ttl_ms, host = ARGV[8], tonumber(ARGV[9]), ARGV[10]

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if TERMINAL[run.state] then return reply({'NO', run.state}) end
read_work(run)
if run.cancel_requested then return reply({'OK', run.state}) end

local now = server_ms()
check_journal(run, keys.journal)
check_state_rows(base)
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
local requested = {'type', 'run.cancel_requested', 'attempt', digits(run.attempt)}
local changes = {'cancel_requested', digits(now)}
if host ~= '' then set_field(requested, 'host', host) end
if reason ~= '' then
  set_field(requested, 'reason', reason)
  set_field(changes, 'cancel_reason', reason)
end
set_field(requested, 'at', digits(now))
-- A request races with a claim. Both are scripts, so one of them is first. Before the claim, the run is
-- pending and ends here: no worker ever sees it. After the claim, the run is running and the request
-- stands in its hash: finish, release and tend read it there, and end the run cancelled. A request
-- that only woke the worker would be lost with the message, or with the worker.
if run.state == 'pending' then
  local ending = {events = {requested}, changes = changes, details = {}, stopped = 'pending'}
  end_cancelled(run, run_id, keys, base, writer, ending, now, ttl_ms)
  local answer = reply({'OK', 'cancelled'})
  expire_ended(run, keys)
  return answer
end
-- ZREM first: a server without free memory refuses a script whose first write can grow, and a cancel
-- must work there, since ends free memory.
remove_from_queue(base, run.target, run_id)
local function wake_worker()
  local control = control_key(base, run.worker)
  redis.call('XADD', control, 'MAXLEN', '~', CONTROL_MESSAGES, '*', 'kind', 'cancel',
    'run', run_id, 'claim', run.claim)
  redis.call('PEXPIREAT', control, digits(now + CONTROL_MS))
end
-- Only a hint, for speed: the answer of every heartbeat repeats it, so a lost message loses nothing.
if run.claim ~= '' then try(wake_worker) end
add_entry(writer, requested)
write_head(run, writer, changes)
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', run.state})

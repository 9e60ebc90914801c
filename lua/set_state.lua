-- Changes a run's state as the transition table allows; an end without a closing event leaves the
-- run unsealed.
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
--   8 state        text
--   9 ttl_ms       integer
--   10 owner        text or ''
--   11 owner_lease_ms integer
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET, 4 zset moves, at an end sweep_a_little
-- include: states, time, keys, producer, expiry, run, events, index, journal, queue, lifecycle, ending, cancel, overdue

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local state, ttl_ms = ARGV[8], tonumber(ARGV[9])
local owner, owner_lease_ms = ARGV[10], tonumber(ARGV[11])

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if TERMINAL[run.state] or run.state == state then return reply({'NO', run.state}) end

local now = server_ms()
read_work(run)
check_journal(run, keys.journal)
check_state_rows(KEYS[7], {owners_key(KEYS[7])})
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
local never_again = state == 'pending' and run.cancel_requested
if TERMINAL[state] or never_again then
  if never_again then
    local ending = {details = {}, stopped = 'pending'}
    end_cancelled(run, run_id, keys, KEYS[7], writer, ending, now, ttl_ms)
  else
    local ending = {state = state, error = '', seal = run.closing}
    end_run(run, run_id, keys, KEYS[7], writer, ending, now, ttl_ms)
  end
  local answer = reply({'OK', digits(writer.seq)})
  expire_ended(run, keys)
  sweep_a_little(KEYS[7], KEYS[6], feed_max, ttl_ms, now)
  return answer
end
if state == 'pending' then
  wait_again(run, run_id, KEYS[7], writer, {due_ms = 0, error = ''}, now)
else
  local changes = enter_state(run, run_id, KEYS[7], writer, state, {})
  if owner ~= '' then
    set_field(changes, 'owner', owner)
    set_field(changes, 'owner_lease_ms', digits(owner_lease_ms))
    redis.call('ZADD', owners_key(KEYS[7]), digits(now + owner_lease_ms), run_id)
  end
  write_head(run, writer, changes)
end
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', digits(writer.seq)})

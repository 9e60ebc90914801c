-- Ends a run in one step: result, last event, terminal state, seal, and one expiry for all keys.
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
--   8 state         text
--   9 ttl_ms        integer
--   10 claim         text or ''
--   11 error         text or ''
--   12 result        text or ''
--   13 result_size   integer
--   14 result_sha256 text
--   15 dead          text or '' why it goes to the dead letters
--   16 stopped       text or '' what made a cancelled execution stop
--   17 count         integer
--   18 events        texts, see include/events.lua
-- RETURNS
--   OK version
--   NO state
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers result feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 4 to 6 XADD, 2 HSET, 1 SET, zset moves, and sweep_a_little
-- include: states, time, keys, producer, expiry, run, events, index, journal, queue, lifecycle, ending, overdue

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local feed_max, state, ttl_ms, claim = ARGV[5], ARGV[8], tonumber(ARGV[9]), ARGV[10]
local failure, result, size, sha256 = ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local dead, stopped = ARGV[15], ARGV[16]
local events = read_events(18, tonumber(ARGV[17]))

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if claim ~= '' and claim ~= run.claim then return reply({'FENCED'}) end
if TERMINAL[run.state] then return reply({'NO', run.state}) end

local now = server_ms()
read_work(run)
check_journal(run, keys.journal)
check_state_rows(KEYS[7])
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
if claim ~= '' and run.cancel_requested then
  -- A cancel and an end race. The request's caller was answered that the run will end cancelled, and the
  -- worker may send its result before it learns of the request. Scripts run one after the other, so
  -- the request was either before this end or finds a run that has ended. If it was before, the run
  -- ends cancelled whatever the worker sends: otherwise the caller of the request would see a run
  -- end completed after all. The handler's result and events are dropped with its state.
  if stopped == '' then stopped = 'handler' end
  if state ~= 'cancelled' then
    state, failure, result, events, dead = 'cancelled', '', '', {}, ''
  end
end
local ending = {state = state, error = failure, seal = true, events = {}, changes = {},
  details = claim ~= '' and execution(run) or {}, dead = dead ~= '' and dead or nil}
if stopped ~= '' then set_field(ending.details, 'stopped', stopped) end
if dead ~= '' then set_field(ending.details, 'reason', dead) end
if result ~= '' then
  ending.events[1] = {'type', 'run.result', 'size', size, 'sha256', sha256}
  ending.changes = {'result_size', size, 'result_sha256', sha256}
end
for _, fields in ipairs(events) do
  if claim ~= '' then set_field(fields, 'attempt', digits(run.attempt)) end
  ending.events[#ending.events + 1] = fields
end
end_run(run, run_id, keys, KEYS[7], writer, ending, now, ttl_ms)
if result ~= '' then redis.call('SET', keys.result, result) end
local answer = reply({'OK', digits(writer.seq)})
expire_ended(run, keys)
sweep_a_little(KEYS[7], KEYS[6], feed_max, ttl_ms, now)
return answer

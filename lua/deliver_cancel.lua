-- Records that an execution has learnt of the requested cancel; only the first call writes.
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
-- RETURNS
--   OK version
--   NO state                no cancel was requested
--   NOT_FOUND
--   FENCED
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET
-- include: time, keys, producer, expiry, run, events, journal, queue, lifecycle

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local claim = ARGV[8]

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if claim == '' or claim ~= run.claim then return reply({'FENCED'}) end
read_work(run)
if not run.cancel_requested then return reply({'NO', run.state}) end
if run.cancel_delivered then return reply({'OK', digits(run.version)}) end

local now = server_ms()
check_journal(run, keys.journal)
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
local fields, details = {'type', 'run.cancel_delivered'}, execution(run)
for i = 1, #details do fields[#fields + 1] = details[i] end
set_field(fields, 'at', digits(now))
add_entry(writer, fields)
write_head(run, writer, {'cancel_delivered', digits(now)})
touch_live(run, keys, now_ms, live_ttl_ms)
return reply({'OK', digits(writer.seq)})

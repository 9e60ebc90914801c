-- Seals a run that ended without a closing event, once the time for a closing event is over.
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
--   8 late_ms      integer
-- RETURNS
--   OK version
--   NO state
--   WAIT milliseconds
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers feed
-- COST 2 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD, 2 HSET
-- include: states, time, keys, producer, expiry, run, journal

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local feed_max, late_ms = ARGV[5], tonumber(ARGV[8])

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if not TERMINAL[run.state] then return {'NO', run.state} end
if run.seal then return {'OK', digits(run.version)} end
local now = server_ms()
local ended_ms = count_of(keys.run, 'ended_ms', redis.call('HGET', keys.run, 'ended_ms'), 0)
local remaining = ended_ms + late_ms - now
if remaining > 0 then return {'WAIT', digits(remaining)} end

check_journal(run, keys.journal)
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
add_entry(writer, {'type', 'run.sealed', 'seal', '1'})
local version = digits(writer.seq)
write_head(run, writer, {'seal', version})
local answer = reply({'OK', version})
expire_ended(run, keys)
return answer

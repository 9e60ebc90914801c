-- Appends events, also after the end of the run. Before the seal an event is streamed, and a closing
-- event seals; after the seal an event is stored as a late entry.
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
--   8 batches      integer
--   9 writes       groups: late_ms integer, event texts
-- RETURNS
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
--   each OK version
-- WRITES run journal producers feed
-- COST 1 HGET, 1 HMGET, 1 XREVRANGE, 2 XADD an event, 2 HSET; one event in 32 an XTRIM
-- include: states, time, refusals, keys, producer, expiry, run, events, journal, snapshot

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local now_ms, feed_max, live_ttl_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_events = tonumber(ARGV[7])
local batches, late_ms = tonumber(ARGV[8]), tonumber(ARGV[9])

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_run(keys.run)
if not run then return {'NOT_FOUND'} end
local ended, moment, changes, answer = TERMINAL[run.state], ARGV[4], {}, {}
if ended then
  moment = digits(server_ms())
  check_may_call('PEXPIREAT', keys.run, '1')
  check_may_call('PERSIST', keys.run)
end
local live_until = not ended and touch_due(run, now_ms, live_ttl_ms)
if max_events > 0 and run.version + #ARGV - run.snapshot >= max_events / 2 then
  check_may_call('HGETALL', keys.run)
  check_may_call('XTRIM', keys.journal, 'MAXLEN', '1')
end
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, moment)

-- No local functions from here on: Lua would create them again in every call, and this is a hot path.
if ended and not run.seal then
  local ended_ms = tonumber(redis.call('HGET', keys.run, 'ended_ms') or 0)
  if not ended_ms or ended_ms < 0 or ended_ms > MOST then fail_damaged(keys.run, 'ended_ms') end
  if tonumber(moment) >= ended_ms + late_ms then
    add_entry(writer, {'type', 'run.sealed', 'seal', '1'})
    run.seal = digits(writer.seq)
    set_field(changes, 'seal', run.seal)
  end
end
local at = 9
for i = 1, 2 * batches, 2 do
  local list, first, last, late = ARGV, at + 2, at + 1 + ARGV[at + 1], run.seal
  at = last + 1
  if late then
    list = {unpack(ARGV, first, last)}
    set_field(list, 'late', '1')
    first, last = 1, #list
  elseif ended and is_closing(run.target, list, first, last) then
    list = {unpack(ARGV, first, last)}
    set_field(list, 'seal', '1')
    first, last = 1, #list
    run.seal = digits(writer.seq + 1)
    set_field(changes, 'seal', run.seal)
  end
  add_entry(writer, list, first, last)
  if not late then note_event(run, writer.seq, changes, list, first, last) end
  answer[i], answer[i + 1] = 'OK', digits(writer.seq)
end
local version = writer.seq
commit(run, keys, writer, changes, max_events, now_ms)
if writer.seq > version then answer[#answer] = digits(writer.seq) end
record_answer(keys.producers, producer, n, deadline_of(run), answer)
if ended then
  expire_ended(run, keys)
elseif live_until then
  move_live(run, keys, live_until)
end
return answer

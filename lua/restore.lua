-- Makes a run of the journal that restore_page.lua collected; all of it becomes visible at once.
--
-- KEYS
--   1 run        hash    <prefix>:{p}:run:<run_id>
--   2 journal    stream  <prefix>:{p}:journal:<run_id>
--   3 producers  hash    <prefix>:{p}:producers:<run_id>
--   4 input      string  <prefix>:{p}:input:<run_id>
--   5 result     string  <prefix>:{p}:result:<run_id>
--   6 base       prefix  <prefix>:{p}
--   7 restoring  stream  <prefix>:{p}:restoring:<run_id>:<digest>
-- ARGV
--   1 run_id       text
--   2 producer     text
--   3 n            integer
--   4 now_ms       integer
--   5 feed_max     integer
--   6 live_ttl_ms  integer
--   7 max_events   integer
--   8 ttl_ms       integer
--   9 last_id      text     the id of the archive's last entry
--   10 due_ms       integer  no worker may start it before; 0: at once
--   11 input        text or ''
--   12 result       text or ''
--   13 checkpoint   text or ''
--   14 partitions   text
--   15 fields       texts: name, value, for each field of the fold
-- RETURNS
--   OK version
--   EXISTS                  the id has a run; the caller finds out whether it is this one
--   ELSEWHERE last_id       the collected journal is incomplete, or does not exist ('')
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers input result base restoring
-- COST 1 HGET, 1 EXISTS, 1 XREVRANGE, 15 ZSCORE, 1 RENAME, 1 DEL, 3 SET, 2 HSET, 10 ZREM, 5 ZADD
-- include: states, time, keys, producer, run, events, foldable, partition, rows

local keys, base, restoring = passed_run_keys(), KEYS[6], KEYS[7]
local run_id, producer, n, live_ttl_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])
local ttl_ms, last_id, due_ms = tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local payloads = {input = ARGV[11], result = ARGV[12], checkpoint = ARGV[13]}

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local refused = unconfirmed(base, ARGV[14])
if refused then return refused end
if redis.call('EXISTS', keys.run) == 1 then return {'EXISTS'} end
local last = redis.call('XREVRANGE', restoring, '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= last_id then return {'ELSEWHERE', last and last[1] or ''} end
local fields = {}
for i = 15, #ARGV do fields[#fields + 1] = ARGV[i] end
local state, target = field(fields, 'state'), field(fields, 'target')
if not is_foldable(fields) then fail_damaged(keys.run, 'journal') end
check_rows(base, target, field(fields, 'tenant') or '')

local now, live_until, deadline = server_ms(), 0, 0
if TERMINAL[state] then
  deadline = ttl_ms > 0 and now + ttl_ms or 0
elseif live_ttl_ms > 0 then
  live_until = math.max(now, due_ms) + live_ttl_ms
  deadline = live_until + LIVE_GRACE_MS
end
-- RENAME replaces the tombstone of a deleted run with the same id, if one is left.
redis.call('RENAME', restoring, keys.journal)
redis.call('DEL', keys.input, keys.result, keys.checkpoint)
for name, payload in pairs(payloads) do
  if payload ~= '' then redis.call('SET', keys[name], payload) end
end
redis.call('HSET', keys.run, 'live_until', digits(live_until), unpack(fields))
local version = string.match(last_id, '-(%d+)$')
local answer = record_answer(keys.producers, producer, n, deadline, {'OK', version})
write_rows(base, run_id, keys, deadline, now)
return answer

-- Removes a run. Its journal stays for a minute as a tombstone that ends with run.deleted, because
-- deleting a key does not wake the readers that block on it.
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
--   8 force        0 or 1
-- RETURNS
--   OK version
--   NOT_TERMINAL state
--   NOT_FOUND
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers input result feed base
-- COST 1 HGET, 2 HMGET, 1 XREVRANGE, 2 XADD, 3 DEL, 10 ZREM (with a tenant 11)
-- include: states, time, keys, producer, expiry, run, index, journal, queue

local keys = passed_run_keys()
local run_id, producer, n = ARGV[1], ARGV[2], ARGV[3]
local feed_max, force = ARGV[5], ARGV[8]
local TOMBSTONE_MS = 60000

local again = recorded_answer(keys.producers, producer, n)
if again then return again end
local run = read_whole_run(keys.run)
if not run then return {'NOT_FOUND'} end
local function reply(answer)
  return record_answer(keys.producers, producer, n, deadline_of(run), answer)
end
if not TERMINAL[run.state] and force ~= '1' then return reply({'NOT_TERMINAL', run.state}) end

local now = server_ms()
-- A hash that is behind its journal must not prevent the delete: the entry goes after both.
local last = last_entry_id(keys.journal)
local ms, seq = string.match(last or '', '^(%d+)-(%d+)$')
run.last_ms = math.max(run.last_ms, tonumber(ms or 0))
run.version = math.max(run.version, tonumber(seq or 0))
local writer = open_journal(run, run_id, keys.journal, KEYS[6], feed_max, digits(now))
local base, member = KEYS[7], index_member(run.created_ms, run_id)
-- DEL first: a server without free memory refuses a script whose first write can grow, and a delete
-- is what frees memory.
redis.call('DEL', keys.run, keys.input, keys.result, keys.checkpoint)
remove_from_indexes(base, run.target, run.tenant, member)
remove_member(state_index_key(base, run.state), member)
remove_member(expiring_key(base), removal_row(run, member))
remove_member(overdue_key(base), removal_row(run, member))
remove_member(leases_key(base), run_id)
remove_member(owners_key(base), run_id)
remove_from_queue(base, run.target, run_id)
add_entry(writer, {'type', 'run.deleted'})
local answer = reply({'OK', digits(writer.seq)})
redis.call('PEXPIREAT', keys.journal, digits(now + TOMBSTONE_MS))
redis.call('PEXPIREAT', keys.producers, digits(now + TOMBSTONE_MS))
return answer

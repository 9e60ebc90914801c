-- Replaces a run's hash and its rows in indexes, queue and leases by the fold of its journal. If the
-- journal has grown since it was read, nothing is written: the fold would lose the new entries.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 run_id       text
--   2 last_id      text     the id of the journal's last entry, as it was folded
--   3 ttl_ms       integer
--   4 live_ttl_ms  integer
--   5 state        text
--   6 fields       texts: name, value, for each field of the fold
-- RETURNS
--   OK version
--   WRONG_VERSION id
-- WRITES base
-- COST 1 XREVRANGE, 1 PTTL, 2 HMGET, 12 ZSCORE, 1 DEL, 2 HSET, 10 ZREM, 6 ZADD (with a tenant), 6 PEXPIREAT
-- include: states, time, refusals, keys, run, events, index, foldable, rows

local base, run_id, last_id, state = KEYS[1], ARGV[1], ARGV[2], ARGV[5]
local keys = keys_of_run(base, run_id)
local ttl_ms, live_ttl_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local last = redis.call('XREVRANGE', keys.journal, '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= last_id then return {'WRONG_VERSION', last and last[1] or '-'} end
local now, left = server_ms(), redis.call('PTTL', keys.journal)
local fields = {}
for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end

-- The run expires when its journal does; a journal without an expiry gives it a new deadline.
local ended = TERMINAL[state]
local span = ended and ttl_ms or (live_ttl_ms > 0 and live_ttl_ms + LIVE_GRACE_MS or 0)
local deadline = left > 0 and now + left or (span > 0 and now + span or 0)
local live_until = (ended or deadline == 0) and 0 or math.max(now, deadline - LIVE_GRACE_MS)
-- The hash may have been replaced by a key of another type: a rebuild repairs that, too.
local _, owned = try(redis.call, 'HMGET', keys.run, 'owner', 'owner_lease_ms')
local owner, lease = owned and owned[1] or '', owned and owned[2] or ''
local owner_lease_ms = tonumber(string.match(lease, '^%d+$') or '')
if not is_foldable(fields) then fail_damaged(keys.run, 'journal') end
check_rows(base, field(fields, 'target'), field(fields, 'tenant') or '')
redis.call('DEL', keys.run)
redis.call('HSET', keys.run, 'live_until', digits(live_until), unpack(fields))
remove_member(owners_key(base), run_id)
if owner ~= '' and owner_lease_ms and owner_lease_ms < MOST and state == 'running' then
  redis.call('HSET', keys.run, 'owner', owner, 'owner_lease_ms', digits(owner_lease_ms))
  -- A whole new lease: a sweep that found the run damaged has removed its row.
  redis.call('ZADD', owners_key(base), digits(now + owner_lease_ms), run_id)
end
write_rows(base, run_id, keys, deadline, now)
return {'OK', string.match(last_id, '-(%d+)$')}

-- include: states, time, refusals, keys
-- The indexes of a partition.
local EXPIRED_PER_CALL = 3

-- Before the first write: a key that is not a sorted set refuses the call.
local function check_zsets(keys)
  for _, key in ipairs(keys) do redis.call('ZSCORE', key, '') end
end

-- Where a change of a run's state may add the run. more: keys besides.
local function check_places(base, more)
  check_zsets({overdue_key(base), expiring_key(base)})
  for _, state in ipairs(all_states()) do check_zsets({state_index_key(base, state)}) end
  check_zsets(more or {})
end

-- A key of another type holds no row that could be removed.
local function leave(key, member)
  try(redis.call, 'ZREM', key, member)
end

local function index_member(created_ms, run_id)
  return string.format('%013.0f', created_ms) .. ':' .. run_id
end

local function move_state(base, member, from, to)
  leave(state_index_key(base, from), member)
  redis.call('ZADD', state_index_key(base, to), 0, member)
end

local function leave_states(base, member)
  for _, state in ipairs(all_states()) do
    leave(state_index_key(base, state), member)
  end
end

-- A row of overdue or expiring: what is needed to clean up after a hash that is gone. It is
-- "<target>:<index member>", or "<target>/<tenant>:<index member>".
local function removal_row(run, member)
  return run.target .. (run.tenant ~= '' and '/' .. run.tenant or '') .. ':' .. member
end

-- Returns target, tenant ('' for none) and index member.
local function read_removal_row(row)
  return string.match(row, '^([^:/]+)/?([^:]*):(.+)$')
end

-- Takes a run out of the indexes that it is in from its first moment to its last.
local function leave_indexes(base, target, tenant, member)
  leave(index_key(base), member)
  leave(target_index_key(base, target), member)
  if tenant ~= '' then leave(tenant_index_key(base, tenant), member) end
end

-- Removes what expiry left behind in the indexes.
local function remove_expired(base, now_ms, limit)
  local due = redis.call('ZRANGEBYSCORE', expiring_key(base), '-inf', digits(now_ms),
    'LIMIT', 0, limit)
  for _, entry in ipairs(due) do
    redis.call('ZREM', expiring_key(base), entry)
    local target, tenant, member = read_removal_row(entry)
    -- A row that was written by hand is only removed.
    if target then
      leave_indexes(base, target, tenant, member)
      for state in pairs(TERMINAL) do leave(state_index_key(base, state), member) end
    end
  end
  return #due
end

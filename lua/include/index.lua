-- include: states, refusals, keys
-- The indexes of a partition.
local EXPIRED_PER_CALL = 3

-- Before the first write: a key that is not a sorted set refuses the call. A key that was checked stays
-- sound until the call ends, because nothing else is executed meanwhile.
local function check_zsets(keys)
  local sound = CALL.sound_zsets or {}
  CALL.sound_zsets = sound
  for _, key in ipairs(keys) do
    if key and not sound[key] then
      redis.call('ZSCORE', key, '')
      sound[key] = true
    end
  end
end

-- Before the first write: the rows that a change of state may write. more: further keys.
local function check_state_rows(base, more)
  check_zsets({overdue_key(base), expiring_key(base)})
  for _, state in ipairs(all_states()) do check_zsets({state_index_key(base, state)}) end
  check_zsets(more or {})
end

-- The same for a run that ends, from one state in another.
local function check_end_rows(base, from, to)
  local ends = CALL.sound_ends or {}
  CALL.sound_ends = ends
  if ends[from] == to then return end
  check_zsets({overdue_key(base), expiring_key(base), state_index_key(base, from),
    state_index_key(base, to)})
  ends[from] = to
end

-- Removes a member of a sorted set. A key of another type cannot hold it, so that is not an error here.
local function remove_member(key, member)
  try(redis.call, 'ZREM', key, member)
end

local function index_member(created_ms, run_id)
  return string.format('%013.0f', created_ms) .. ':' .. run_id
end

local function move_state(base, member, from, to)
  remove_member(state_index_key(base, from), member)
  redis.call('ZADD', state_index_key(base, to), 0, member)
end

local function remove_from_states(base, member)
  for _, state in ipairs(all_states()) do
    remove_member(state_index_key(base, state), member)
  end
end

-- A row of overdue or expiring names every index that the run is in, so that they can be cleaned when
-- the hash is gone: "<target>:<index member>", or "<target>/<tenant>:<index member>".
local function removal_row(run, member)
  return run.target .. (run.tenant ~= '' and '/' .. run.tenant or '') .. ':' .. member
end

-- Returns target, tenant ('' for none) and index member.
local function read_removal_row(row)
  return string.match(row, '^([^:/]+)/?([^:]*):(.+)$')
end

-- Removes a run from the indexes that do not depend on its state.
local function remove_from_indexes(base, target, tenant, member)
  remove_member(index_key(base), member)
  remove_member(target_index_key(base, target), member)
  if tenant ~= '' then remove_member(tenant_index_key(base, tenant), member) end
end

-- Removes the rows of expired runs from the indexes.
local function remove_expired(base, now_ms, limit)
  local due = redis.call('ZRANGEBYSCORE', expiring_key(base), '-inf', now_ms,
    'LIMIT', 0, limit)
  for _, entry in ipairs(due) do
    redis.call('ZREM', expiring_key(base), entry)
    local target, tenant, member = read_removal_row(entry)
    -- A row that was written by hand names no indexes: it is only removed.
    if target then
      remove_from_indexes(base, target, tenant, member)
      for state in pairs(TERMINAL) do remove_member(state_index_key(base, state), member) end
    end
  end
  return #due
end

-- include: states, keys
-- The indexes of a partition.
local EXPIRED_PER_CALL = 3

local function index_member(created_ms, run_id)
  return string.format('%013.0f', created_ms) .. ':' .. run_id
end

local function move_state(base, member, from, to)
  redis.call('ZREM', state_index_key(base, from), member)
  redis.call('ZADD', state_index_key(base, to), 0, member)
end

local function leave_states(base, member)
  for _, state in ipairs(all_states()) do
    redis.call('ZREM', state_index_key(base, state), member)
  end
end

-- A row of overdue or expiring: what is needed to clean up after a hash that is gone.
local function removal_row(target, member) return target .. ':' .. member end

-- Removes what expiry left behind in the indexes; a member is "<target>:<index member>".
local function remove_expired(base, now_ms, limit)
  local due = redis.call('ZRANGEBYSCORE', expiring_key(base), '-inf', digits(now_ms),
    'LIMIT', 0, limit)
  for _, entry in ipairs(due) do
    local target, member = string.match(entry, '^([^:]+):(.+)$')
    redis.call('ZREM', index_key(base), member)
    redis.call('ZREM', target_index_key(base, target), member)
    for state in pairs(TERMINAL) do
      redis.call('ZREM', state_index_key(base, state), member)
    end
    redis.call('ZREM', expiring_key(base), entry)
  end
  return #due
end

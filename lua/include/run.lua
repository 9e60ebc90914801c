-- include: states, time
-- What every write reads of a run's hash, and the expiry its keys share.
local BUSY_MS = 2000

local function read_run(key)
  local v = redis.call('HMGET', key, 'state', 'version', 'last_ms', 'target', 'epoch',
    'created_ms', 'attempt', 'claim', 'live_until', 'seal', 'snapshot', 'expire_at')
  if not v[1] then return nil end
  if not (v[2] and v[3] and v[4] and v[5] and v[6]) then
    error('DAMAGED the hash ' .. key .. ' lacks version, last_ms, target, epoch or created_ms')
  end
  return {
    key = key, state = v[1], version = tonumber(v[2]), last_ms = tonumber(v[3]), target = v[4],
    created_ms = v[6], attempt = v[7] or '0', claim = v[8] or '',
    live_until = v[9] and tonumber(v[9]) or 0, seal = v[10], snapshot = v[11] or '0',
    expire_at = v[12] and tonumber(v[12]) or 0,
  }
end

-- With what only changes of state need: the hot scripts would pay for each field.
local function read_whole_run(key)
  local run = read_run(key)
  if not run then return nil end
  local v = redis.call('HMGET', key, 'closing', 'cancel_event', 'owner', 'owner_lease_ms', 'tenant')
  run.closing, run.cancel_event, run.owner = v[1], v[2], v[3]
  run.owner_lease_ms, run.tenant = tonumber(v[4] or 0), v[5] or ''
  return run
end

-- Whether the hash holds numbers where they are needed, and the journal ends where it says: only
-- then can an entry be appended.
local function is_sound(run, journal_key)
  if not (tonumber(run.created_ms) and tonumber(run.attempt) and run.owner_lease_ms) then return false end
  local last = redis.call('XREVRANGE', journal_key, '+', '-', 'COUNT', 1)[1]
  return last and last[1] == digits(run.last_ms) .. '-' .. digits(run.version)
end

-- Like read_whole_run, for scripts that serve many runs: one that was damaged by hand costs only
-- itself. The second value is true when there is something, but nothing that can be written to.
local function try_run(keys)
  local readable, run = pcall(read_whole_run, keys.run)
  if not readable then return nil, true end
  if not run then return nil, false end
  local checked, sound = pcall(is_sound, run, keys.journal)
  if not (checked and sound) then return nil, true end
  return run, false
end

-- When the run's keys expire, 0 for never. What live_until says is over with the end.
local function deadline_of(run)
  if run.expire_at > 0 or TERMINAL[run.state] then return run.expire_at end
  return run.live_until > 0 and run.live_until + LIVE_GRACE_MS or 0
end

local function expire_keys(keys, at_ms)
  local at = digits(at_ms)
  for _, key in pairs(keys) do redis.call('PEXPIREAT', key, at) end
end

local function persist_keys(keys)
  for _, key in pairs(keys) do redis.call('PERSIST', key) end
end

-- Moves a live run's expiry on when a tenth of it has passed, so that most writes need not.
-- It only ever moves on, so the row in overdue, which is left alone here, is never too late.
-- The caller's clock may be any: it only saves busy runs a TIME, and not when it is proved wrong,
-- which it is before the moment when the server moved the expiry last.
local function touch_live(run, keys, now_ms, live_ttl_ms)
  if run.live_until == 0 or live_ttl_ms == 0 then return end
  local moved_ms = run.live_until - live_ttl_ms
  local next_ms = moved_ms + 0.1 * live_ttl_ms
  local is_busy = now_ms >= run.last_ms and now_ms - run.last_ms <= BUSY_MS
  if is_busy and now_ms >= moved_ms and now_ms <= next_ms then return end
  local now = server_ms()
  if now <= next_ms then return end
  run.live_until = now + live_ttl_ms
  redis.call('HSET', run.key, 'live_until', digits(run.live_until))
  expire_keys(keys, run.live_until + LIVE_GRACE_MS)
end

-- Called last by every write to an ended run: whatever it made expires with the rest.
local function expire_ended(run, keys)
  if run.expire_at > 0 then expire_keys(keys, run.expire_at) else persist_keys(keys) end
end

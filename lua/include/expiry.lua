-- include: states, time
-- The expiry that a run's keys share.
local BUSY_MS = 2000

-- When the run's keys expire, 0 for never. After the end live_until no longer counts.
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

-- Writes a payload that expires with its run. deadline: 0 for never.
local function set_payload(key, payload, deadline)
  if deadline > 0 then
    redis.call('SET', key, payload, 'PXAT', digits(deadline))
  else
    redis.call('SET', key, payload)
  end
end

-- Returns the new live_until of a live run, or nil if it stays; called before the first write. It moves
-- only when a tenth of live_ttl_ms has passed since the last move, so that most writes do not move it.
-- It never moves back. So the row in overdue, which does not move, can be too early but not too late.
--
-- now_ms comes from the caller's clock, which may be wrong. It only saves busy runs a TIME call: if it is
-- close to the last entry's time, and not before the last move, it decides that nothing moves. In every
-- other case the server's clock decides.
local function touch_due(run, now_ms, live_ttl_ms)
  if run.live_until == 0 or live_ttl_ms == 0 then return end
  local moved_ms = run.live_until - live_ttl_ms
  local next_ms = moved_ms + 0.1 * live_ttl_ms
  local is_busy = now_ms >= run.last_ms and now_ms - run.last_ms <= BUSY_MS
  if is_busy and now_ms >= moved_ms and now_ms <= next_ms then return end
  local now = server_ms()
  if now <= next_ms then return end
  return now + live_ttl_ms
end

local function move_live(run, keys, live_until)
  run.live_until = live_until
  redis.call('HSET', run.key, 'live_until', digits(run.live_until))
  expire_keys(keys, run.live_until + LIVE_GRACE_MS)
end

local function touch_live(run, keys, now_ms, live_ttl_ms)
  local due = touch_due(run, now_ms, live_ttl_ms)
  if due then move_live(run, keys, due) end
end

-- Called last by every write to an ended run, so that new keys expire with the others.
local function expire_ended(run, keys)
  -- A payload that the run does not have needs no expiry; only read_whole_run knows.
  for name, size in pairs(run.payloads or {}) do
    if not size then keys[name] = nil end
  end
  if run.expire_at > 0 then expire_keys(keys, run.expire_at) else persist_keys(keys) end
end

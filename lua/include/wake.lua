-- include: time, keys
-- Wakes an idle worker of a target: idle workers block on a stream of tokens.
local WAKE_TOKENS = 64
local WAKE_TTL_MS = 86400000

-- Adds a wake-up token for one idle worker. A token is only a hint, so a short stream is enough. Waiting
-- workers extend the stream's expiry; without one it expires after a day, and so does a stream that is
-- made here, so that agents that were removed leave nothing behind.
local function wake(base, target, run_id)
  local key = wake_key(base, target)
  local there = redis.call('XADD', key, 'NOMKSTREAM', 'MAXLEN', WAKE_TOKENS, '*', 'run', run_id)
  if there then return end
  redis.call('XADD', key, '*', 'run', run_id)
  redis.call('PEXPIREAT', key, digits(server_ms() + WAKE_TTL_MS))
end

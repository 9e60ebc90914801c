-- Stores what a worker reports of itself until its reports stop.
--
-- KEYS
--   1 worker     hash    <prefix>:worker:<worker_id>
-- ARGV
--   1 keep_ms    integer
--   2 fields     texts: name, value, for each
-- RETURNS
--   OK now_ms
-- WRITES worker
-- COST 1 HLEN, 1 HSET, 2 PEXPIREAT
-- include: time

local now, fields = server_ms(), {}
for i = 2, #ARGV do fields[#fields + 1] = ARGV[i] end
local expire_at = digits(now + tonumber(ARGV[1]))
-- HLEN and PEXPIREAT first: they fail for a key of another type and for a user who may not set an
-- expiry. Failing after HSET would leave a hash that never expires, and list the worker for ever.
redis.call('HLEN', KEYS[1])
redis.call('PEXPIREAT', KEYS[1], expire_at)
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIREAT', KEYS[1], expire_at)
return {'OK', digits(now)}

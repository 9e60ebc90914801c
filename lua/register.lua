-- Keeps what a worker tells of itself, for as long as it goes on telling it.
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
-- First what refuses a key of another type, or a user who may not set the expiry: without one, a
-- worker would be listed for ever.
redis.call('HLEN', KEYS[1])
redis.call('PEXPIREAT', KEYS[1], expire_at)
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIREAT', KEYS[1], expire_at)
return {'OK', digits(now)}

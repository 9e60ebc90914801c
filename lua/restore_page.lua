-- Collects the next entries of a run that is being restored under a key that no reader looks at; they
-- expire if the rest never comes.
--
-- KEYS
--   1 restoring  stream  <prefix>:{p}:restoring:<run_id>:<digest>
--   2 base       prefix  <prefix>:{p}
-- ARGV
--   1 after_id  text or ''  the id of the last entry before these; '' where the journal begins
--   2 keep_ms   integer     how long the entries wait for more
--   3 count     integer
--   4 partitions  text
--   5 entries   texts: of each its id, how many texts follow, name, value, ...
-- RETURNS
--   OK last_id
--   ELSEWHERE last_id       it ends with another entry, or does not exist ('')
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
-- WRITES restoring
-- COST 1 HGET, 1 XREVRANGE, 1 XADD an entry, 1 PEXPIREAT
-- include: time, partition

local restoring, after_id = KEYS[1], ARGV[1]
local keep_ms, count = tonumber(ARGV[2]), tonumber(ARGV[3])
local refused = unconfirmed(KEYS[2], ARGV[4])
if refused then return refused end
local last = redis.call('XREVRANGE', restoring, '+', '-', 'COUNT', 1)[1]
local last_id = last and last[1] or ''
if last_id ~= after_id then return {'ELSEWHERE', last_id} end

local at = 5
for _ = 1, count do
  local first, size = at + 2, tonumber(ARGV[at + 1])
  last_id = ARGV[at]
  redis.call('XADD', restoring, last_id, unpack(ARGV, first, first + size - 1))
  at = first + size
end
redis.call('PEXPIREAT', restoring, digits(server_ms() + keep_ms))
return {'OK', last_id}

-- Records the number of partitions in meta and in one partition, where it is missing. If one of them
-- holds another number, nothing is written: otherwise a program could fill the partition by one number
-- while meta has another one.
--
-- KEYS
--   1 meta       hash    <prefix>:meta
--   2 base       prefix  <prefix>:{p}
-- ARGV
--   1 schema_version  text
--   2 partitions      text
-- RETURNS
--   OK
--   OTHER schema_version partitions here  what meta and the partition hold; '' for nothing
-- WRITES meta base
-- COST 1 HMGET, 1 HGET, 3 HSETNX
-- include: keys

local meta, here = KEYS[1], meta_key(KEYS[2])
local stored = redis.call('HMGET', meta, 'schema_version', 'partitions')
local schema_version, partitions = stored[1] or '', stored[2] or ''
local own = redis.call('HGET', here, 'partitions') or ''
local function differs(found, given) return found ~= '' and found ~= given end
if differs(schema_version, ARGV[1]) or differs(partitions, ARGV[2]) or differs(own, ARGV[2]) then
  return {'OTHER', schema_version, partitions, own}
end
redis.call('HSETNX', meta, 'schema_version', ARGV[1])
redis.call('HSETNX', meta, 'partitions', ARGV[2])
redis.call('HSETNX', here, 'partitions', ARGV[2])
return {'OK'}

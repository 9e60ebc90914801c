-- Writes the number of partitions into meta and into one partition where it is missing, unless
-- another number stands in one of them. Both or neither: no program can fill the partition by one
-- number while meta has another one.
--
-- KEYS
--   1 meta       hash    <prefix>:meta
--   2 base       prefix  <prefix>:{p}
-- ARGV
--   1 schema_version  text
--   2 partitions      text
-- RETURNS
--   OK
--   OTHER schema_version partitions here  what stands in meta and in the partition; '' for nothing
-- WRITES meta base
-- COST 1 HMGET, 1 HGET, 3 HSETNX
-- include: keys

local meta, here = KEYS[1], meta_key(KEYS[2])
local kept = redis.call('HMGET', meta, 'schema_version', 'partitions')
local schema_version, partitions = kept[1] or '', kept[2] or ''
local own = redis.call('HGET', here, 'partitions') or ''
local function differs(found, given) return found ~= '' and found ~= given end
if differs(schema_version, ARGV[1]) or differs(partitions, ARGV[2]) or differs(own, ARGV[2]) then
  return {'OTHER', schema_version, partitions, own}
end
redis.call('HSETNX', meta, 'schema_version', ARGV[1])
redis.call('HSETNX', meta, 'partitions', ARGV[2])
redis.call('HSETNX', here, 'partitions', ARGV[2])
return {'OK'}

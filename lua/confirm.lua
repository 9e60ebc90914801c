-- Records the number of partitions in meta, or in the key of the same name of one partition, where it is
-- missing. If another number is recorded there, nothing is written.
--
-- KEYS
--   1 meta       hash    <prefix>:meta
-- ARGV
--   1 schema_version  text or ''
--   2 partitions      text
-- RETURNS
--   OK
--   OTHER schema_version partitions  what is recorded; '' for nothing
-- WRITES meta
-- COST 1 HMGET, 2 HSETNX

local stored = redis.call('HMGET', KEYS[1], 'schema_version', 'partitions')
local schema_version, partitions = stored[1] or '', stored[2] or ''
local function differs(found, given) return found ~= '' and given ~= '' and found ~= given end
if differs(schema_version, ARGV[1]) or differs(partitions, ARGV[2]) then
  return {'OTHER', schema_version, partitions}
end
if ARGV[1] ~= '' then redis.call('HSETNX', KEYS[1], 'schema_version', ARGV[1]) end
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[2])
return {'OK'}

-- Records the numbers of partitions in meta, and in the keys of the same name of partitions, where they are
-- missing. If other numbers are recorded in one of them, nothing is written.
--
-- One server records all of them at once. Between two calls the server could be emptied, and another program
-- could record other numbers in one of them. A cluster calls this for meta and then for each partition:
-- they are on several nodes.
--
-- KEYS
--   1 meta       hash    <prefix>:meta
-- ARGV
--   1 schema_version  text or ''  for the first of them; '' if that is a partition's
--   2 partitions      text
-- RETURNS
--   OK
--   OTHER index schema_version partitions  what is recorded in one of them; '' for nothing
-- WRITES meta
-- COST 1 HMGET and 1 HSETNX a key, 1 HSETNX

local function differs(found, given) return found ~= '' and given ~= '' and found ~= given end

for index, key in ipairs(KEYS) do
  local stored = redis.call('HMGET', key, 'schema_version', 'partitions')
  local schema_version, partitions = stored[1] or '', stored[2] or ''
  if differs(schema_version, ARGV[1]) or differs(partitions, ARGV[2]) then
    return {'OTHER', tostring(index), schema_version, partitions}
  end
end
if ARGV[1] ~= '' then redis.call('HSETNX', KEYS[1], 'schema_version', ARGV[1]) end
for _, key in ipairs(KEYS) do redis.call('HSETNX', key, 'partitions', ARGV[2]) end
return {'OK'}

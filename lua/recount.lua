-- One step of a change of the numbers of partitions: in meta, or in the key of the same name of a partition.
--
-- A raise first notes in meta what the numbers will be, so that no two raises mix. Then each partition
-- records them: from then on it refuses programs with the old numbers, and no run can appear in it by an
-- old number. Only then meta itself records them, and programs create runs by the new number.
--
-- KEYS
--   1 meta       hash    <prefix>:meta
-- ARGV
--   1 step       text        begin, record or publish
--   2 before     text or ''  what is recorded now; '' for nothing
--   3 after      text        what is to be recorded
-- RETURNS
--   OK
--   OTHER recorded changing  nothing was written: this is recorded, and that change is under way
-- WRITES meta
-- COST 1 HMGET, 1 HSET

local stored = redis.call('HMGET', KEYS[1], 'partitions', 'changing')
local recorded, changing = stored[1] or '', stored[2] or ''
local step, before, after = ARGV[1], ARGV[2], ARGV[3]
if recorded == after then
  if step == 'publish' then redis.call('HSET', KEYS[1], 'changing', '') end
  return {'OK'}
end
if recorded ~= before or (step == 'begin' and changing ~= '' and changing ~= after) then
  return {'OTHER', recorded, changing}
end
if step == 'begin' then
  redis.call('HSET', KEYS[1], 'changing', after)
elseif step == 'record' then
  redis.call('HSET', KEYS[1], 'partitions', after)
else
  redis.call('HSET', KEYS[1], 'partitions', after, 'changing', '')
end
return {'OK'}

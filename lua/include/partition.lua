-- include: keys
-- Refuses a caller if this partition does not record the caller's number of partitions.
--
-- A program compares its number with <prefix>:meta once, when it starts. If the server is emptied later,
-- meta is gone, and another program may start with another number. Without this check both would go on:
-- each would put runs into partitions where the other one does not look for them. A script cannot read
-- meta, which lies in another slot. So each partition records the number as well, and every script that
-- creates something in a partition or takes work out of it compares the caller's number with that. If
-- they differ, it writes nothing and answers UNCONFIRMED; the caller runs confirm.lua, which compares
-- and records the number, and then repeats its call.
local function unconfirmed(base, partitions)
  if redis.call('HGET', meta_key(base), 'partitions') == partitions then return nil end
  return {'UNCONFIRMED'}
end

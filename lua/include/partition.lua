-- include: keys
-- Whether this partition records the caller's number of partitions.
--
-- Each program compares its number with <prefix>:meta when it starts. A FLUSHALL removes meta, too. A
-- program that goes on working would then create runs by its number, while another one starts with a
-- new number: each would look for the other's runs in the wrong partitions. Scripts cannot read meta,
-- because it lies in another slot. So each partition records the number as well, and a script that
-- can fill an empty partition, or takes what others put there, rejects a caller whose number is not
-- recorded there. That caller runs confirm.lua and repeats its call.
local function unconfirmed(base, partitions)
  if redis.call('HGET', meta_key(base), 'partitions') == partitions then return nil end
  return {'UNCONFIRMED'}
end

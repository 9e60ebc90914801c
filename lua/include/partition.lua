-- include: keys
-- Whether a partition is known to belong to a key space of so many partitions.
--
-- Each program compares its number with <prefix>:meta at its start. After a FLUSHALL meta is gone,
-- and a program that goes on would create runs by its number while another one starts with a new
-- number: each would look for the other's runs where they are not. No script may look at meta: it
-- lies in another slot. So each partition keeps the number as well, and a script that can fill an
-- empty partition, or takes what others put there, refuses a caller whose number does not stand
-- there. That one calls confirm.lua, then asks again.
local function unconfirmed(base, partitions)
  if redis.call('HGET', meta_key(base), 'partitions') == partitions then return nil end
  return {'UNCONFIRMED'}
end

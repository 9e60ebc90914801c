-- Wakes another idle worker of a target: the one that got the hint has no free slot.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 target     text
-- RETURNS
--   OK
-- WRITES base
-- COST 1 TIME, 1 SISMEMBER, up to 2 ZRANGEBYSCORE, 1 ZPOPMAX, 1 SPUBLISH
-- include: time, refusals, queue

try(wake_if_ready, KEYS[1], ARGV[1], server_ms())
return {'OK'}

-- Lets no worker start runs of a target any more.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 target     text
-- RETURNS
--   OK
-- WRITES base
-- COST 1 SADD
-- include: keys

redis.call('SADD', paused_key(KEYS[1]), ARGV[1])
return {'OK'}

-- Removes the stream and the name of a target that has no dead letters any more.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
-- ARGV
--   1 target     text
-- RETURNS
--   OK
-- WRITES base
-- COST 1 XREVRANGE, 1 DEL, 1 SREM
-- include: dead

forget_letters(KEYS[1], ARGV[1])
return {'OK'}

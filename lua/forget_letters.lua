-- Removes what is left of an agent's dead letters when the last of them is gone.
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

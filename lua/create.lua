-- Creates a run that waits, all of it visible at once.
--
-- KEYS
--   1 run        hash    <prefix>:{p}:run:<run_id>
--   2 journal    stream  <prefix>:{p}:journal:<run_id>
--   3 producers  hash    <prefix>:{p}:producers:<run_id>
--   4 input      string  <prefix>:{p}:input:<run_id>
--   5 result     string  <prefix>:{p}:result:<run_id>
--   6 feed       stream  <prefix>:{p}:feed
--   7 base       prefix  <prefix>:{p}
-- ARGV
--   1 run_id       text
--   2 producer     text
--   3 n            integer
--   4 now_ms       integer
--   5 feed_max     integer
--   6 live_ttl_ms  integer
--   7 max_events   integer
--   8 target       text
--   9 epoch        text
--   10 input        text
--   11 input_size   integer
--   12 input_sha256 text
--   13 metadata     text
--   14 ttl_ms       integer
--   15 tenant       text or ''
--   16 partitions   text
-- RETURNS
--   OK version
--   EXISTS
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers input feed base
-- COST 1 HGET, 1 EXISTS, 5 ZSCORE, 1 HSET, 2 XADD, 4 ZADD (with a tenant 5), and sweep_a_little
-- include: producer, create, partition

local again = recorded_answer(KEYS[3], ARGV[2], ARGV[3])
if again then return again end
local refused = unconfirmed(KEYS[7], ARGV[16])
if refused then return refused end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'EXISTS'} end
return create_run({
  run_id = ARGV[1], producer = ARGV[2], n = ARGV[3], now_ms = ARGV[4], feed_max = ARGV[5],
  live_ttl_ms = tonumber(ARGV[6]), target = ARGV[8], epoch = ARGV[9], input = ARGV[10],
  input_size = ARGV[11], input_sha256 = ARGV[12], metadata = ARGV[13], feed = KEYS[6],
  base = KEYS[7], ttl_ms = tonumber(ARGV[14]), tenant = ARGV[15],
})

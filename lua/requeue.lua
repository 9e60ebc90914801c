-- Submits a run that replaces a dead letter: the run is created and the letter removed in one step.
--
-- KEYS
--   1 run        hash    <prefix>:{p}:run:<run_id>
--   2 journal    stream  <prefix>:{p}:journal:<run_id>
--   3 producers  hash    <prefix>:{p}:producers:<run_id>
--   4 input      string  <prefix>:{p}:input:<run_id>
--   5 result     string  <prefix>:{p}:result:<run_id>
--   6 feed       stream  <prefix>:{p}:feed
--   7 base       prefix  <prefix>:{p}
--   8 dead       stream  <prefix>:{p}:dead:<target>
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
--   16 priority     integer
--   17 delay_ms     integer
--   18 due_ms       integer  used without a delay; 0 for now
--   19 deadline_ms  integer  from when it is due; 0 for none
--   20 traceparent  text or ''
--   21 tracestate   text or ''
--   22 request_sha256 text or ''  the digest of a request with an idempotency key
--   23 letter       text
--   24 partitions   text
-- RETURNS
--   OK version
--   EXISTS
--   NOT_FOUND               the letter does not exist
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
--   DROPPED                 an older call of this producer, whose caller has gone
-- WRITES run journal producers input feed base dead
-- COST as submit, 1 XRANGE, 1 XDEL, as forget_letters
-- include: refusals, producer, dead, create, partition

local again = recorded_answer(KEYS[3], ARGV[2], ARGV[3])
if again then return again end
local refused = unconfirmed(KEYS[7], ARGV[24])
if refused then return refused end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'EXISTS'} end
if #redis.call('XRANGE', KEYS[8], ARGV[23], ARGV[23]) == 0 then return {'NOT_FOUND'} end
local answer = create_run({
  run_id = ARGV[1], producer = ARGV[2], n = ARGV[3], now_ms = ARGV[4], feed_max = ARGV[5],
  live_ttl_ms = tonumber(ARGV[6]), target = ARGV[8], epoch = ARGV[9], input = ARGV[10],
  input_size = ARGV[11], input_sha256 = ARGV[12], metadata = ARGV[13], feed = KEYS[6],
  base = KEYS[7], ttl_ms = tonumber(ARGV[14]), tenant = ARGV[15], queued = true,
  priority = tonumber(ARGV[16]), delay_ms = tonumber(ARGV[17]), due_ms = tonumber(ARGV[18]),
  deadline_ms = tonumber(ARGV[19]), traceparent = ARGV[20], tracestate = ARGV[21],
  request_sha256 = ARGV[22],
})
redis.call('XDEL', KEYS[8], ARGV[23])
try(forget_letters, KEYS[7], ARGV[8])
return answer

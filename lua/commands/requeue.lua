-- Submits a run that replaces a dead letter: the run is created and the letter removed in one step.
--
-- ARGV
--   1 letter_id    text
--   2 target       text
--   3 epoch        text
--   4 input        text
--   5 input_size   integer
--   6 input_sha256 text
--   7 metadata     text
--   8 tenant       text or ''
--   9 priority     integer
--   10 delay_ms    integer
--   11 due_ms      integer  used without a delay; 0 for now
--   12 deadline_ms integer  from when it is due; 0 for none
--   13 traceparent text or ''
--   14 tracestate  text or ''
--   15 request_sha256 text or ''  the digest of a request with an idempotency key
-- RETURNS
--   OK version
--   EXISTS
--   ELSEWHERE               this partition is of an older number, where no run is created
--   NOT_FOUND
-- WRITES run journal input
-- COST as submit, 1 XRANGE, 1 XDEL, as forget_letters
-- include: refusals, keys, dead, create

local function requeue(run_id, at)
  local letter_id, target = ARGV[at], ARGV[at + 1]
  local letters = dead_key(CALL.base, target)
  local exists, is_reused = look_up(run_id)
  if exists then return 'EXISTS' end
  if #redis.call('XRANGE', letters, letter_id, letter_id) == 0 then return 'NOT_FOUND' end
  local answer = create_run(run_id, read_submission(at + 1), is_reused)
  redis.call('XDEL', letters, letter_id)
  try(forget_letters, CALL.base, target)
  return answer
end

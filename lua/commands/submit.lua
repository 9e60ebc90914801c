-- Creates a run and puts it into its target's queue, in one step.
--
-- ARGV
--   1 target       text
--   2 epoch        text
--   3 input        text
--   4 input_size   integer
--   5 input_sha256 text
--   6 metadata     text
--   7 tenant       text or ''
--   8 priority     integer
--   9 delay_ms     integer
--   10 due_ms      integer  used without a delay; 0 for now
--   11 deadline_ms integer  from when it is due; 0 for none
--   12 traceparent text or ''
--   13 tracestate  text or ''
--   14 request_sha256 text or ''  the digest of a request with an idempotency key
-- RETURNS
--   OK version
--   EXISTS
--   ELSEWHERE               this partition is of an older number, where no run is created
-- WRITES run journal input
-- COST as create, 1 ZADD, 1 XADD
-- include: create

local function submit(run_id, at)
  local exists, is_reused = look_up(run_id)
  if exists then return 'EXISTS' end
  return create_run(run_id, read_submission(at), is_reused)
end

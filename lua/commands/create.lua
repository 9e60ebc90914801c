-- Creates a run that waits, all of it visible at once.
--
-- ARGV
--   1 target       text
--   2 epoch        text
--   3 input        text
--   4 input_size   integer
--   5 input_sha256 text
--   6 metadata     text
--   7 tenant       text or ''
-- RETURNS
--   OK version
--   EXISTS
--   ELSEWHERE               this partition is of an older number, where no run is created
-- WRITES run journal input
-- COST 1 EXISTS, 5 ZSCORE, 1 SET, 1 HSET, 2 XADD, 1 COPY, 1 RENAME, 5 ZADD, 2 PEXPIREAT, and sweep_a_little
-- include: create

local function create(run_id, at)
  local target, epoch, input, input_size, input_sha256, metadata, tenant = unpack(ARGV, at, at + 6)
  local exists, is_reused = look_up(run_id)
  if exists then return 'EXISTS' end
  return create_run(run_id, {target = target, epoch = epoch, input = input, input_size = input_size,
    input_sha256 = input_sha256, metadata = metadata, tenant = tenant}, is_reused)
end

-- include: time, refusals, keys, run, queue
-- Restores rows of queues and leases that were deleted, from the hashes of the live runs, page by page.
local SCRUBBED = 50

local function scrub_row(base, run_id, now, lease_ms)
  local run = try_run(keys_of_run(base, run_id))
  if not run then return end
  read_work(run)
  if run.state == 'pending' and run.queued then
    if not redis.call('ZSCORE', queue_key(base, run.target), run_id) then
      enqueue(base, run, run_id, now)
    end
  elseif run.state == 'running' and run.claim ~= '' then
    redis.call('ZADD', leases_key(base), 'NX', digits(now + lease_ms), run_id)
  end
end

-- Compares the next page of live runs. cursor: a state and the last index member that was compared.
-- Returns the next cursor, which ends with a space when all runs of a state were compared.
local function scrub(base, cursor, now, lease_ms)
  local state, last = string.match(cursor, '^(%a+) (.*)$')
  if state ~= 'running' then state = 'pending' end
  local from = last and last ~= '' and '(' .. last or '-'
  local rows = redis.call('ZRANGEBYLEX', state_index_key(base, state), from, '+',
    'LIMIT', 0, SCRUBBED)
  for _, member in ipairs(rows) do
    try(scrub_row, base, string.match(member, '^[^:]+:(.+)$'), now, lease_ms)
  end
  if #rows == SCRUBBED then return state .. ' ' .. rows[#rows] end
  return state == 'pending' and 'running ' or 'pending '
end

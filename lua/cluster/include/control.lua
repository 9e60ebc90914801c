-- include: keys
-- The same on a cluster, by a message: to read its control streams of all partitions, a worker would need a
-- connection for each.
local function wake_worker(base, run, run_id, now)
  redis.call('SPUBLISH', control_key(base, run.worker), 'cancel ' .. run_id .. ' ' .. run.claim)
end

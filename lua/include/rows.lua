-- include: states, time, keys, expiry, run, index, queue
-- Writes everything that is derived from a run's hash: rows in indexes, queue and leases, and the expiry.
local function write_work_rows(base, run, run_id, now)
  remove_from_queue(base, run.target, run_id)
  if run.state == 'pending' and run.queued then enqueue(base, run, run_id, now) end
  if run.state == 'running' and run.claim ~= '' then
    -- The worker's next heartbeat extends the lease; without a worker, tend requeues the run.
    redis.call('ZADD', leases_key(base), 'NX', digits(now), run_id)
  else
    remove_member(leases_key(base), run_id)
  end
end

-- Before the first write: checks the rows of a run of this target and tenant ('' for none).
local function check_rows(base, target, tenant)
  check_state_rows(base, {leases_key(base), owners_key(base)})
  check_zsets({index_key(base), target_index_key(base, target)})
  if tenant ~= '' then check_zsets({tenant_index_key(base, tenant)}) end
end

-- Writes the rows that the run's new hash asks for. deadline: when its keys expire, 0 for never.
local function write_rows(base, run_id, keys, deadline, now)
  local run = read_whole_run(keys.run)
  local ended, member = TERMINAL[run.state], index_member(run.created_ms, run_id)
  remove_from_states(base, member)
  redis.call('ZADD', index_key(base), 0, member)
  redis.call('ZADD', state_index_key(base, run.state), 0, member)
  redis.call('ZADD', target_index_key(base, run.target), 0, member)
  if run.tenant ~= '' then redis.call('ZADD', tenant_index_key(base, run.tenant), 0, member) end
  local row = removal_row(run, member)
  remove_member(overdue_key(base), row)
  remove_member(expiring_key(base), row)
  read_work(run)
  local overdue = ended and 0 or overdue_at(run, run.state)
  if overdue > 0 then redis.call('ZADD', overdue_key(base), digits(overdue), row) end
  write_work_rows(base, run, run_id, now)
  if ended then
    redis.call('HSET', keys.run, 'expire_at', digits(deadline))
    if deadline > 0 then redis.call('ZADD', expiring_key(base), digits(deadline), row) end
  end
  if deadline > 0 then expire_keys(keys, deadline) else persist_keys(keys) end
end

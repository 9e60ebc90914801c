-- include: states, time, keys, producer, run, journal, events, index, snapshot
-- Changes of state: to another live state, or to the end.

-- Enters a live state. extra: what the entry and the hash get besides; claim '' clears it.
local function enter_state(run, run_id, keys, base, writer, state, extra)
  local fields = {'type', 'run.state', 'state', state}
  for i = 1, #extra do fields[#fields + 1] = extra[i] end
  add_entry(writer, fields)
  local changes = {'state', state, 'claim', field(extra, 'claim') or ''}
  local attempt, worker = field(extra, 'attempt'), field(extra, 'worker')
  if attempt then set_field(changes, 'attempt', attempt) end
  if worker then set_field(changes, 'worker', worker) end
  if state == 'running' then
    redis.call('HSETNX', keys.run, 'started_ms', digits(writer.ms))
  end
  if run.owner and run.owner ~= '' then
    set_field(changes, 'owner', '')
    redis.call('ZREM', owners_key(base), run_id)
  end
  local member = index_member(run.created_ms, run_id)
  move_state(base, member, run.state, state)
  return changes
end

-- Ends a run: the last entries, the hash, the indexes, and one expiry for all its keys.
-- p: state, error, seal, events (written before the end), changes (for the hash besides).
local function end_run(run, run_id, keys, base, writer, p, now, ttl_ms)
  local changes = flush_progress(keys, writer, now)
  for i = 1, #p.changes do changes[#changes + 1] = p.changes[i] end
  for _, fields in ipairs(p.events) do
    add_entry(writer, fields)
    note_event(run, writer.seq, changes, fields, 1, #fields)
  end
  if p.state == 'cancelled' and not run.cancel_event then
    local fields = {'type', 'run_cancelled'}
    add_entry(writer, fields)
    note_event(run, writer.seq, changes, fields, 1, #fields)
  end
  local last = {'type', 'run.state', 'state', p.state, 'at', digits(now)}
  if p.error ~= '' then
    set_field(last, 'error', p.error)
    set_field(changes, 'error', p.error)
  end
  if p.seal or p.state == 'cancelled' then set_field(last, 'seal', '1') end
  add_entry(writer, last)
  if p.seal or p.state == 'cancelled' then set_field(changes, 'seal', digits(writer.seq)) end
  local expire_at = ttl_ms > 0 and now + ttl_ms or 0
  local member = index_member(run.created_ms, run_id)
  redis.call('HSET', keys.run, 'state', p.state, 'version', digits(writer.seq), 'last_ms',
    digits(writer.ms), 'ended_ms', digits(now), 'claim', '', 'expire_at', digits(expire_at),
    unpack(changes))
  move_state(base, member, run.state, p.state)
  redis.call('ZREM', leases_key(base), run_id)
  redis.call('ZREM', owners_key(base), run_id)
  redis.call('ZREM', overdue_key(base), removal_row(run.target, member))
  redis.call('ZREM', queue_key(base, run.target), run_id)
  if expire_at > 0 then
    redis.call('ZADD', expiring_key(base), digits(expire_at), removal_row(run.target, member))
  end
  run.expire_at = expire_at
end

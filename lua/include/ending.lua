-- include: time, keys, events, index, journal, queue, snapshot, lifecycle, dead
-- The end of a run.
local function write_ends(run, writer, p, now, changes)
  for _, fields in ipairs(p.events or {}) do
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
  if p.details then add_all(last, p.details) end
  add_entry(writer, last)
  if p.seal or p.state == 'cancelled' then set_field(changes, 'seal', digits(writer.seq)) end
end

-- Ends a run: the last entries, the hash, the indexes, and one expiry for all its keys.
-- p: state, error, seal, events (written before the end), changes (more fields of the hash), details
-- (more fields of the last entry), dead (the reason why it goes to the dead letters).
local function end_run(run, run_id, keys, base, writer, p, now, ttl_ms)
  local changes = p.changes or {}
  local member = index_member(run.created_ms, run_id)
  -- ZREM first: a server without free memory refuses a script whose first write can grow, and the
  -- end of a run is what frees memory.
  if run.claim ~= '' then remove_member(leases_key(base), run_id) end
  if run.owner and run.owner ~= '' then remove_member(owners_key(base), run_id) end
  remove_member(overdue_key(base), removal_row(run, member))
  if run.state == 'pending' then remove_from_queue(base, run.target, run_id) end
  if p.state == 'failed' and p.details and field(p.details, 'attempt') then
    run.failures = run.failures + 1
    set_field(changes, 'failures', digits(run.failures))
    note_error(run, changes, p.error)
  end
  if p.dead then
    local letter_id = write_dead_letter(base, run, run_id, p.dead, p.error, now)
    if letter_id then set_field(changes, 'letter', letter_id) end
  end
  if run.is_dirty then add_all(changes, flush_progress(keys, writer, now)) end
  write_ends(run, writer, p, now, changes)
  local expire_at = ttl_ms > 0 and now + ttl_ms or 0
  redis.call('HSET', keys.run, 'state', p.state, 'version', writer.seq, 'last_ms',
    writer.moment, 'ended_ms', digits(now), 'claim', '', 'expire_at', digits(expire_at), unpack(changes))
  move_state(base, member, run.state, p.state)
  if expire_at > 0 then
    redis.call('ZADD', expiring_key(base), expire_at, removal_row(run, member))
  end
  run.expire_at = expire_at
end

-- include: states, time, keys, ahead, expiry, events, index, journal, queue, overdue
-- Reads the options of a queued run; p.delay_ms counts from now, p.deadline_ms from the due time.
local function read_order(run, p, now)
  run.queued, run.priority = p.queued, p.priority or 0
  run.due_ms = (p.delay_ms or 0) > 0 and now + p.delay_ms or p.due_ms or 0
  -- A due time in the past would put the run ahead of every priority.
  if run.due_ms <= now then run.due_ms = 0 end
  run.deadline_ms = (p.deadline_ms or 0) > 0 and math.max(now, run.due_ms) + p.deadline_ms or 0
end

-- Adds a value, unless it is empty, to the run's first entry and to its hash.
local function set_both(fields, hash, name, value, name_in_hash)
  if value == '' then return end
  set_field(fields, name, value)
  set_field(hash, name_in_hash or name, value)
end

local function write_order(run, p, fields, hash)
  set_both(fields, hash, 'queued', '1')
  if run.priority ~= 0 then set_both(fields, hash, 'priority', digits(run.priority)) end
  if run.due_ms > 0 then set_both(fields, hash, 'due', digits(run.due_ms), 'due_ms') end
  if run.deadline_ms > 0 then
    set_both(fields, hash, 'deadline', digits(run.deadline_ms), 'deadline_ms')
    set_both(fields, hash, 'deadline_span', digits(p.deadline_ms), 'deadline_span_ms')
  end
  set_both(fields, hash, 'traceparent', p.traceparent)
  set_both(fields, hash, 'tracestate', p.tracestate)
  set_both(fields, hash, 'request_sha256', p.request_sha256)
end

-- The arguments of a run that is put into a queue.
local function read_submission(at)
  local target, epoch, input, input_size, input_sha256, metadata, tenant = unpack(ARGV, at, at + 6)
  local priority, delay_ms, due_ms, deadline_ms, traceparent, tracestate, request_sha256 =
    unpack(ARGV, at + 7, at + 13)
  return {target = target, epoch = epoch, input = input, input_size = input_size,
    input_sha256 = input_sha256, metadata = metadata, tenant = tenant, queued = true,
    priority = tonumber(priority), delay_ms = tonumber(delay_ms), due_ms = tonumber(due_ms),
    deadline_ms = tonumber(deadline_ms), traceparent = traceparent, tracestate = tracestate,
    request_sha256 = request_sha256}
end

-- Whether the id has a run, and whether it has a journal: of a run, or the tombstone of one.
local function look_up(run_id)
  CALL.absent = CALL.absent or find_absent()
  if CALL.absent[run_id] then return false, false end
  local base = CALL.base
  if redis.call('EXISTS', run_key(base, run_id), journal_key(base, run_id)) == 0 then
    return false, false
  end
  return redis.call('EXISTS', run_key(base, run_id)) == 1, true
end

-- Writes a new run, for create, submit and requeue. If a run with this id was deleted within the last
-- minute, its journal still exists as a tombstone, and a reader may be blocked on it, after its last id.
-- The server wakes that reader only for an entry with a higher id. So the first entry of the new run gets
-- a higher id than the last one of the tombstone. is_reused: whether the id has a journal.
local function create_run(run_id, p, is_reused)
  -- The caller found a run here that has gone since: a new one belongs where the newest number says.
  if CALL.is_older then return 'ELSEWHERE' end
  local base, live_ttl_ms, now = CALL.base, CALL.live_ttl_ms, server_ms()
  local keys = keys_of_events(base, run_id)
  local tombstone = is_reused and redis.call('XREVRANGE', keys.journal, '+', '-', 'COUNT', 1)[1]
  local ms = tombstone and math.max(now, tonumber(string.match(tombstone[1], '^(%d+)')) + 1) or now
  local run = {target = p.target, tenant = p.tenant, version = 0, last_ms = 0, created_ms = ms}
  read_order(run, p, now)
  local live_until = live_ttl_ms > 0 and math.max(now, run.due_ms) + live_ttl_ms or 0
  local deadline = live_until > 0 and live_until + LIVE_GRACE_MS or 0
  run.live_until = live_until
  -- Before the first write: these fail where an index is a key of another type.
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, ms)
  check_zsets({index_key(base), state_index_key(base, 'pending'), overdue_key(base),
    target_index_key(base, p.target), p.tenant ~= '' and tenant_index_key(base, p.tenant)})
  if tombstone then redis.call('DEL', keys.journal) end
  local fields = {'type', 'run.created', 'target', p.target, 'epoch', p.epoch}
  local hash = {'target', p.target, 'state', 'pending', 'version', '1', 'epoch', p.epoch,
    'last_ms', writer.moment, 'created_ms', writer.moment, 'attempt', '0'}
  if p.input ~= '' then
    set_both(fields, hash, 'input_size', p.input_size)
    set_both(fields, hash, 'input_sha256', p.input_sha256)
    set_payload(input_key(base, run_id), p.input, deadline)
  end
  set_both(fields, hash, 'metadata_json', p.metadata)
  set_both(fields, hash, 'tenant', p.tenant)
  if run.queued then write_order(run, p, fields, hash) end
  set_field(hash, 'live_until', digits(live_until))
  redis.call('HSET', keys.run, unpack(hash))
  add_entry(writer, fields)
  compact_journal(keys.journal)
  local member = index_member(ms, run_id)
  redis.call('ZADD', index_key(base), 0, member)
  redis.call('ZADD', state_index_key(base, 'pending'), 0, member)
  redis.call('ZADD', target_index_key(base, p.target), 0, member)
  if p.tenant ~= '' then redis.call('ZADD', tenant_index_key(base, p.tenant), 0, member) end
  local overdue = overdue_at(run, 'pending')
  if overdue > 0 then
    redis.call('ZADD', overdue_key(base), overdue, removal_row(run, member))
  end
  if run.queued then enqueue(base, run, run_id, now) end
  if deadline > 0 then expire_keys({keys.run, keys.journal}, deadline) end
  sweep_a_little(base, CALL.feed, CALL.ttl_ms, now)
  return 'OK 1'
end

-- include: states, time, keys, producer, run, journal, events, index, queue, snapshot
-- Changes to another live state; they want read_work first, as does the end.
local ERRORS_BYTES = 4000
local EXCUSED = {worker_stopped = true, retry_later = true}

-- Enters a live state. extra: what the entry and the hash get besides; claim '' clears it.
local function enter_state(run, run_id, base, writer, state, extra)
  local fields = {'type', 'run.state', 'state', state}
  for i = 1, #extra do fields[#fields + 1] = extra[i] end
  -- First what a server without free memory lets through: it must be able to take runs back.
  if state ~= 'running' then leave(leases_key(base), run_id) end
  add_entry(writer, fields)
  local claim = field(extra, 'claim') or ''
  local changes = {'state', state, 'claim', claim}
  for _, name in ipairs({'attempt', 'worker', 'host'}) do
    local text = field(extra, name)
    if text then set_field(changes, name, text) end
  end
  if state == 'running' then
    if not run.started then set_field(changes, 'started_ms', digits(writer.ms)) end
    leave_queue(base, run.target, run_id)
    -- Only what is queued is claimed: without its word for it, the claim says so.
    if claim ~= '' and not run.queued then set_field(changes, 'queued', '1') end
  end
  if run.owner and run.owner ~= '' then
    set_field(changes, 'owner', '')
    leave(owners_key(base), run_id)
  end
  move_state(base, index_member(run.created_ms, run_id), run.state, state)
  return changes
end

-- Keeps the text of a failure while those before are short.
local function note_error(run, changes, failure)
  local before = redis.call('HGET', run.key, 'errors') or ''
  run.errors = before
  if failure == '' or #before >= ERRORS_BYTES then return end
  local line = digits(run.attempt) .. ' ' .. string.gsub(failure, '\n', ' ')
  run.errors = before == '' and line or before .. '\n' .. line
  set_field(changes, 'errors', run.errors)
end

-- Lets a run wait: again in its queue if it was submitted, and under its deadline.
-- p: reason (nil when no execution is over), due_ms (0: its old place), error.
local function wait_again(run, run_id, base, writer, p, now)
  local extra, counted = {}, {}
  if p.reason then
    extra = {'reason', p.reason, 'attempt', digits(run.attempt)}
    if p.reason == 'failed' then set_field(counted, 'failures', digits(run.failures + 1)) end
    if EXCUSED[p.reason] then set_field(counted, 'excused', digits(run.excused + 1)) end
    if p.reason == 'failed' then note_error(run, counted, p.error) end
  end
  if p.error ~= '' then set_field(extra, 'error', p.error) end
  if p.due_ms > 0 then
    run.due_ms = p.due_ms
    set_field(extra, 'due', digits(p.due_ms))
    set_field(counted, 'due_ms', digits(p.due_ms))
  end
  local changes = enter_state(run, run_id, base, writer, 'pending', extra)
  for i = 1, #counted do changes[#changes + 1] = counted[i] end
  keep_head(run, writer, changes)
  if run.queued or run.claim ~= '' then enqueue(base, run, run_id, now) end
  if run.deadline_ms > 0 then
    redis.call('ZADD', overdue_key(base), digits(overdue_at(run, 'pending')),
      removal_row(run, index_member(run.created_ms, run_id)))
  end
end

-- Which execution of the run it is that an entry tells of.
local function execution(run)
  local told = {'attempt', digits(run.attempt)}
  if run.worker ~= '' then set_field(told, 'worker', run.worker) end
  if run.host ~= '' then set_field(told, 'host', run.host) end
  return told
end

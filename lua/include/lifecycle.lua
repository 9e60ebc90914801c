-- include: time, keys, events, index, journal, queue
-- Changes between live states; callers have called read_work, as before the end of a run.
local ERRORS_BYTES = 4000
local EXCUSED = {worker_stopped = true, retry_later = true}

-- Enters a live state, and returns the changes for the hash. extra: more fields for entry and hash; a
-- missing claim clears the claim.
local function enter_state(run, run_id, base, writer, state, extra)
  local fields = {'type', 'run.state', 'state', state}
  add_all(fields, extra)
  -- ZREM first: a server without free memory refuses a script whose first write can grow, and it must
  -- still be possible to take runs back.
  if state ~= 'running' then remove_member(leases_key(base), run_id) end
  add_entry(writer, fields)
  local claim = field(extra, 'claim') or ''
  local changes = {'state', state, 'claim', claim}
  for _, name in ipairs({'attempt', 'worker', 'host'}) do
    local text = field(extra, name)
    if text then set_field(changes, name, text) end
  end
  if state == 'running' then
    if not run.started then set_field(changes, 'started_ms', digits(writer.ms)) end
    -- A claim has removed it already.
    if claim == '' then remove_from_queue(base, run.target, run_id) end
    -- Only queued runs are claimed: a hash that lost the field gets it back from the claim.
    if claim ~= '' and not run.queued then set_field(changes, 'queued', '1') end
  end
  if run.owner and run.owner ~= '' then
    set_field(changes, 'owner', '')
    remove_member(owners_key(base), run_id)
  end
  move_state(base, index_member(run.created_ms, run_id), run.state, state)
  return changes
end

-- Adds the text of a failure to the run's errors, unless they are too long already.
local function note_error(run, changes, failure)
  local before = run.work.errors or ''
  run.errors = before
  if failure == '' or #before >= ERRORS_BYTES then return end
  local line = digits(run.attempt) .. ' ' .. string.gsub(failure, '\n', ' ')
  run.errors = before == '' and line or before .. '\n' .. line
  set_field(changes, 'errors', run.errors)
end

-- Makes a run wait, in its queue if it was submitted, and subject to its deadline.
-- p: reason (nil when no execution ended), due_ms (0: its old position in the queue), error.
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
  add_all(changes, counted)
  write_head(run, writer, changes)
  if run.queued or run.claim ~= '' then enqueue(base, run, run_id, now) end
  if run.deadline_ms > 0 then
    redis.call('ZADD', overdue_key(base), digits(overdue_at(run, 'pending')),
      removal_row(run, index_member(run.created_ms, run_id)))
  end
end

-- The fields that name the present execution of a run.
local function execution(run)
  local fields = {'attempt', digits(run.attempt)}
  if run.worker ~= '' then set_field(fields, 'worker', run.worker) end
  if run.host ~= '' then set_field(fields, 'host', run.host) end
  return fields
end

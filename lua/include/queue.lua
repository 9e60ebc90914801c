-- include: states, time, refusals, keys, expiry, run, index, wake
-- The queue of a target: ready runs in their order, behind them the delayed runs by due time.
local DELAYED = 10000000000000
local PRIORITY_STEP_MS = 60000
local MOVED_AT_ONCE = 100

-- Checks the fields that only claims, ends and cancels need: damage to them does not prevent a delete.
local function read_work(run)
  local all = run.work
  run.queued = all.queued == '1'
  run.priority = number_of(run.key, 'priority', all.priority, 0)
  run.due_ms = count_of(run.key, 'due_ms', all.due_ms, 0)
  run.deadline_ms = count_of(run.key, 'deadline_ms', all.deadline_ms, 0)
  run.failures = count_of(run.key, 'failures', all.failures, 0)
  run.excused = count_of(run.key, 'excused', all.excused, 0)
  run.cancel_requested = all.cancel_requested and all.cancel_requested ~= ''
  run.cancel_delivered = all.cancel_delivered and all.cancel_delivered ~= ''
  run.worker, run.host = all.worker or '', all.host or ''
  run.silent = count_of(run.key, 'silent', all.silent, 0)
  run.started = all.started_ms and all.started_ms ~= ''
end

-- A run that was handed back without a new due time has its old position, not one behind all others.
local function ready_score(run)
  local waiting_since = run.due_ms > 0 and run.due_ms or run.created_ms
  return waiting_since - run.priority * PRIORITY_STEP_MS
end

local function queue_score(run, now)
  return run.due_ms > now and DELAYED + run.due_ms or ready_score(run)
end

-- A delayed run wakes a worker, too: that worker then knows when the run is due. If the queue's key has
-- another type, the run is written all the same, without its row: tend adds the row once the key is a
-- queue again.
local function enqueue(base, run, run_id, now)
  try(redis.call, 'ZADD', queue_key(base, run.target), queue_score(run, now), run_id)
  try(wake, base, run.target, run_id)
end

local function remove_from_queue(base, target, run_id)
  remove_member(queue_key(base, target), run_id)
end

-- The moment at which a live run is ended if nothing is written to it until then; 0 for never. A waiting
-- run is ended at its deadline, if that comes first.
local function overdue_at(run, state)
  if state ~= 'pending' or run.deadline_ms == 0 then return run.live_until end
  return run.live_until == 0 and run.deadline_ms or math.min(run.live_until, run.deadline_ms)
end

-- A run that is not due yet needs no writes to stay alive: its live_until counts from its due time.
local function live_until_due(run, keys, live_ttl_ms)
  if run.live_until == 0 or run.due_ms + live_ttl_ms <= run.live_until then return end
  run.live_until = run.due_ms + live_ttl_ms
  redis.call('HSET', run.key, 'live_until', digits(run.live_until))
  expire_keys(keys, run.live_until + LIVE_GRACE_MS)
end

local function ready_runs(base, target, limit)
  return redis.call('ZRANGEBYSCORE', queue_key(base, target), '-inf', '(' .. digits(DELAYED),
    'LIMIT', 0, limit)
end

-- Moves delayed runs that are due among the ready ones. The hash of a damaged run may not be readable
-- here; the claim that takes the run reports it.
local function move_due(base, target, now, limit)
  local queue = queue_key(base, target)
  local due = redis.call('ZRANGEBYSCORE', queue, DELAYED, DELAYED + now,
    'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #due, 2 do
    local run = {due_ms = tonumber(due[i + 1]) - DELAYED}
    local readable, priority = pcall(redis.call, 'HGET', run_key(base, due[i]), 'priority')
    run.priority = tonumber(readable and priority or '') or 0
    redis.call('ZADD', queue, ready_score(run), due[i])
  end
end

-- How long until the next delayed run of a target is due; -1 when there is none.
local function next_due_ms(base, target, now)
  local first = redis.call('ZRANGEBYSCORE', queue_key(base, target), DELAYED, '+inf',
    'WITHSCORES', 'LIMIT', 0, 1)
  if #first == 0 then return -1 end
  return math.max(0, tonumber(first[2]) - DELAYED - now)
end

-- Reads the front of a queue, after delayed runs that are due became ready. Returns at most limit ready
-- runs, how many runs wait in all, and how long until the next delayed run is due; -1 when there is none.
local function read_queue(base, target, now, limit)
  local waiting, due = redis.call('ZCARD', queue_key(base, target)), -1
  if waiting == 0 then return {}, 0, due end
  local ready = ready_runs(base, target, limit)
  if #ready == waiting then return ready, waiting, due end
  due = next_due_ms(base, target, now)
  if due == 0 then
    move_due(base, target, now, MOVED_AT_ONCE)
    due, ready = next_due_ms(base, target, now), ready_runs(base, target, limit)
  end
  return ready, waiting, due
end

-- Whether a worker of a target would find a run now.
local function has_work(base, target, now)
  if redis.call('SISMEMBER', paused_key(base), target) == 1 then return false end
  return next_due_ms(base, target, now) == 0 or #ready_runs(base, target, 1) > 0
end

-- Wakes one more worker of a target that has work: an earlier token may have gone to a worker that died.
local function wake_if_ready(base, target, now)
  if has_work(base, target, now) then wake(base, target, '') end
end

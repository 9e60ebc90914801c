-- include: time, refusals, keys
-- The dead letters of a target: runs that failed for good, with all that a requeue needs.
local DEAD_LETTERS = 10000

local function are_sound(base, target)
  redis.call('XREVRANGE', dead_key(base, target), '+', '-', 'COUNT', 1)
  redis.call('SISMEMBER', dead_targets_key(base), target)
end

-- Returns the letter's id; nil where a key of another type prevents it: a run that ends without a
-- letter is better than a run that cannot end.
local function write_dead_letter(base, run, run_id, reason, failure, now)
  if not try(are_sound, base, run.target) then return nil end
  local _, given = try(redis.call, 'GET', input_key(base, run_id))
  local stored = run.work
  local letter = {'run_id', run_id, 'reason', reason, 'attempts', digits(run.attempt),
    'failures', digits(run.failures), 'at', digits(now)}
  local more = {error = failure, errors = run.errors or stored.errors,
    metadata_json = stored.metadata_json, input = given, deadline_span = stored.deadline_span_ms,
    traceparent = stored.traceparent, tracestate = stored.tracestate, tenant = stored.tenant,
    priority = run.priority ~= 0 and digits(run.priority)}
  for name, text in pairs(more) do
    if text and text ~= '' then
      letter[#letter + 1] = name
      letter[#letter + 1] = text
    end
  end
  local letter_id = redis.call('XADD', dead_key(base, run.target), 'MAXLEN', '~', DEAD_LETTERS, '*',
    unpack(letter))
  redis.call('SADD', dead_targets_key(base), run.target)
  return letter_id
end

-- The agent may have been removed for good: without a letter, its stream and its name must go, too.
local function forget_letters(base, target)
  if redis.call('XREVRANGE', dead_key(base, target), '+', '-', 'COUNT', 1)[1] then return end
  redis.call('SREM', dead_targets_key(base), target)
  redis.call('DEL', dead_key(base, target))
end

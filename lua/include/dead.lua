-- include: time, refusals, keys
-- The dead letters of a target: what failed for good, with what is needed to try it again.
local DEAD_LETTERS = 10000

local function are_sound(base, target)
  redis.call('XREVRANGE', dead_key(base, target), '+', '-', 'COUNT', 1)
  redis.call('SISMEMBER', dead_targets_key(base), target)
end

-- Returns the letter's id; nil where a key of a wrong type is in the way: a run without a letter is
-- better than one without an end.
local function bury(base, run, run_id, keys, reason, failure, now)
  if not try(are_sound, base, run.target) then return nil end
  local _, given = try(redis.call, 'GET', keys.input)
  local kept = redis.call('HMGET', keys.run, 'errors', 'metadata_json', 'deadline_span_ms',
    'traceparent', 'tracestate', 'tenant')
  local letter = {'run_id', run_id, 'reason', reason, 'attempts', digits(run.attempt),
    'failures', digits(run.failures), 'at', digits(now)}
  local more = {error = failure, errors = run.errors or kept[1], metadata_json = kept[2],
    input = given, deadline_span = kept[3], traceparent = kept[4],
    tracestate = kept[5], tenant = kept[6], priority = run.priority ~= 0 and digits(run.priority)}
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

-- The agent may be no more: without a letter, neither its stream nor its name stays.
local function forget_letters(base, target)
  if redis.call('XREVRANGE', dead_key(base, target), '+', '-', 'COUNT', 1)[1] then return end
  redis.call('SREM', dead_targets_key(base), target)
  redis.call('DEL', dead_key(base, target))
end

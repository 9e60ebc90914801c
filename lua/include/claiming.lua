-- include: cancel
-- What a claim reads before it writes.

-- What could fail of one run fails here, before anything of it is written.
local function read_payloads(run, keys, now)
  local trace = redis.call('HMGET', keys.run, 'traceparent', 'tracestate')
  local deadline = run.deadline_ms > 0
  return {{'input', redis.call('GET', keys.input)},
    {'checkpoint', redis.call('GET', keys.checkpoint)},
    {'traceparent', trace[1]}, {'tracestate', trace[2]},
    {'deadline_ms', deadline and digits(run.deadline_ms)},
    {'deadline_left_ms', deadline and digits(run.deadline_ms - now)}}
end

local function giving_up(run)
  local times = digits(run.attempt)
  local words = 'given up after ' .. times .. (times == '1' and ' attempt' or ' attempts')
  -- What neither failed nor was excused ended without a word.
  local lost = run.attempt - run.failures - run.excused
  if lost <= 0 then return words end
  local each = times == '1' and 'its lease' or 'the lease of each'
  return words .. ': ' .. (digits(lost) == times and each or 'the lease of ' .. digits(lost)) ..
    ' ran out'
end

local function refusal(run, max_attempts, now)
  if run.deadline_ms > 0 and now >= run.deadline_ms then
    return 'deadline_exceeded', DEADLINE_TEXT
  end
  if max_attempts > 0 and run.attempt - run.excused >= max_attempts then
    return 'attempts_exhausted', giving_up(run)
  end
end

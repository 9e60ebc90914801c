-- include: cancel
-- What a claim reads before it writes.

-- What every run needs: what is of a wrong type there refuses the call before it takes any.
local function check_partition(base, feed)
  for _, state in ipairs({'pending', 'running', 'failed'}) do
    redis.call('ZSCORE', state_index_key(base, state), '')
  end
  for _, key_of in ipairs({leases_key, owners_key, overdue_key, expiring_key}) do
    redis.call('ZSCORE', key_of(base), '')
  end
  last_feed_id(feed)
end

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

local function refusal(run, max_attempts, now)
  if run.deadline_ms > 0 and now >= run.deadline_ms then
    return 'deadline_exceeded', DEADLINE_TEXT
  end
  if max_attempts > 0 and run.attempt - run.excused >= max_attempts then
    local times = digits(run.attempt)
    return 'attempts_exhausted',
      'given up after ' .. times .. (times == '1' and ' attempt' or ' attempts')
  end
end

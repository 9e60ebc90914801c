-- include: time, failure_texts
-- A claim's reads, which can fail and so come before its first write to the run.

local function read_payloads(run, keys, now)
  local deadline, has = run.deadline_ms > 0, run.payloads
  return {{'input', has.input and redis.call('GET', keys.input)},
    {'checkpoint', has.checkpoint and redis.call('GET', keys.checkpoint)},
    {'traceparent', run.traceparent}, {'tracestate', run.tracestate},
    {'deadline_ms', deadline and digits(run.deadline_ms)},
    {'deadline_left_ms', deadline and digits(run.deadline_ms - now)}}
end

local function given_up(run)
  local attempts, lost = run.attempt, run.attempt - run.failures - run.excused
  local name = attempts == 1 and 'one' or 'some'
  if lost > 0 then name = (attempts > 1 and lost == attempts and 'all' or name) .. '_lost' end
  local numbers = {attempts = digits(attempts), lost = digits(lost)}
  return (string.gsub(given_up_texts()[name], '{(%w+)}', numbers))
end

local function refusal(run, max_attempts, now)
  if run.deadline_ms > 0 and now >= run.deadline_ms then
    return 'deadline_exceeded', deadline_text()
  end
  if max_attempts > 0 and run.attempt - run.excused >= max_attempts then
    return 'attempts_exhausted', given_up(run)
  end
end

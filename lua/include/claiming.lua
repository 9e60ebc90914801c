-- include: time, keys, events, failure_texts
-- A claim's reads, which can fail and so come before its first write to the run.

-- Returns what the worker gets beside the fields of every claim, by name; without empty texts.
local function read_payloads(run, base, run_id, now)
  local found, has = {traceparent = run.traceparent, tracestate = run.tracestate}, run.payloads
  if has.input then found.input = redis.call('GET', input_key(base, run_id)) end
  if has.checkpoint then found.checkpoint = redis.call('GET', checkpoint_key(base, run_id)) end
  if run.deadline_ms > 0 then
    found.deadline_ms, found.deadline_left_ms = digits(run.deadline_ms), digits(run.deadline_ms - now)
  end
  for name, text in pairs(found) do
    if not text or text == '' then found[name] = nil end
  end
  return found
end

-- Adds the payloads to fields, and returns their size in bytes.
local function add_payloads(fields, payloads)
  local bytes = 0
  for name, text in pairs(payloads) do
    set_field(fields, name, text)
    bytes = bytes + #text
  end
  return bytes
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

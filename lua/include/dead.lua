-- include: time, keys
-- The dead letters of a target: what failed for good, with what is needed to try it again.
local DEAD_LETTERS = 10000

-- Before the writes that end the run: a key of a wrong type must refuse them all.
local function bury(base, run, run_id, keys, reason, failure, now)
  local kept = redis.call('HMGET', keys.run, 'errors', 'metadata_json')
  local letter = {'run_id', run_id, 'reason', reason, 'attempts', digits(run.attempt),
    'failures', digits(run.failures), 'at', digits(now)}
  local more = {error = failure, errors = run.errors or kept[1], metadata_json = kept[2],
    input = redis.call('GET', keys.input)}
  for name, text in pairs(more) do
    if text and text ~= '' then
      letter[#letter + 1] = name
      letter[#letter + 1] = text
    end
  end
  redis.call('XADD', dead_key(base, run.target), 'MAXLEN', '~', DEAD_LETTERS, '*', unpack(letter))
  redis.call('SADD', dead_targets_key(base), run.target)
end

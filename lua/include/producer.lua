-- include: time, refusals
-- Every write is applied once, although its reply may be lost and the store sends it again. Without a
-- record the repeat would append its events a second time. So each write leaves its number and its
-- answer in the run's producers, in the same script, and a repeat gets the recorded answer. A store
-- sends its writes to a run one after the other, so one record for each store (producer) is enough.
-- A record is "<n> <stamp> <answer>". A write leaves '-' as the stamp, which needs no clock; pruning
-- replaces it by the server's time when it first sees it, and removes the record ten minutes later.
local PRODUCER_KEEP_MS = 600000
local PRODUCERS_UNPRUNED = 16

-- Returns nil for a new write, {'DROPPED'} for one older than the last, whose caller has gone, and for
-- a repeat the recorded answer.
local function recorded_answer(producers_key, producer, n)
  local record = redis.call('HGET', producers_key, producer)
  if not record then
    check_may_call('HLEN', producers_key)
    check_may_call('HSCAN', producers_key, '0')
    check_may_call('HDEL', producers_key, 'f')
    check_may_call('PEXPIREAT', producers_key, '1')
    server_ms()
    return nil
  end
  local ahead = tonumber(n) - tonumber(string.match(record, '^%d+'))
  if ahead > 0 then return nil end
  if ahead < 0 then return {'DROPPED'} end
  local answer = {}
  for part in string.gmatch(string.match(record, '^%d+ %S+ (.*)$'), '%S+') do
    answer[#answer + 1] = part
  end
  return answer
end

local function prune_producers(producers_key)
  if redis.call('HLEN', producers_key) <= PRODUCERS_UNPRUNED then return end
  local now = server_ms()
  local records = redis.call('HSCAN', producers_key, '0', 'COUNT', 200)[2]
  for i = 1, #records, 2 do
    local n, stamp, answer = string.match(records[i + 1], '^(%d+) (%S+) (.*)$')
    if not n then
      redis.call('HDEL', producers_key, records[i])
    elseif stamp == '-' then
      redis.call('HSET', producers_key, records[i], n .. ' ' .. digits(now) .. ' ' .. answer)
    elseif tonumber(stamp) < now - PRODUCER_KEEP_MS then
      redis.call('HDEL', producers_key, records[i])
    end
  end
end

-- Records the answer and returns it. deadline_ms: when the run's keys expire, 0 for never.
local function record_answer(producers_key, producer, n, deadline_ms, answer)
  local record = n .. ' - ' .. table.concat(answer, ' ')
  if redis.call('HSET', producers_key, producer, record) == 1 then
    prune_producers(producers_key)
    if deadline_ms > 0 then
      redis.call('PEXPIREAT', producers_key, digits(deadline_ms))
    end
  end
  return answer
end

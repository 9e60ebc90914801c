-- include: time, refusals
-- Every write is applied once: the last answer per producer is kept, and a repeat gets it again.
-- A record is "<n> <stamp> <answer>". A write leaves '-' as the stamp and needs no clock; pruning
-- puts the server's time there when it first sees it, and removes the record ten minutes later.
local PRODUCER_KEEP_MS = 600000
local PRODUCERS_UNPRUNED = 16

-- nil: new, go on. {'DROPPED'}: older than the last, nobody waits for it. Else the first answer.
local function repeated(producers_key, producer, n)
  local record = redis.call('HGET', producers_key, producer)
  if not record then
    need('HLEN', producers_key)
    need('HSCAN', producers_key, '0')
    need('HDEL', producers_key, 'f')
    need('PEXPIREAT', producers_key, '1')
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

-- Keeps the answer and returns it. deadline_ms: when the run's keys expire, 0 for never.
local function remember(producers_key, producer, n, deadline_ms, answer)
  local record = n .. ' - ' .. table.concat(answer, ' ')
  if redis.call('HSET', producers_key, producer, record) == 1 then
    prune_producers(producers_key)
    if deadline_ms > 0 then
      redis.call('PEXPIREAT', producers_key, digits(deadline_ms))
    end
  end
  return answer
end

-- include: time
-- Every write is applied once: the last answer per producer is kept, and a repeat gets it again.
local PRODUCER_KEEP_MS = 600000
local PRODUCERS_UNPRUNED = 16

-- nil: new, go on. {'DROPPED'}: older than the last, nobody waits for it. Else the first answer.
local function repeated(producers_key, producer, n)
  local record = redis.call('HGET', producers_key, producer)
  if not record then return nil end
  local parts = {}
  for part in string.gmatch(record, '%S+') do parts[#parts + 1] = part end
  local last = tonumber(parts[1])
  if tonumber(n) > last then return nil end
  if tonumber(n) < last then return {'DROPPED'} end
  local answer = {}
  for i = 3, #parts do answer[#answer + 1] = parts[i] end
  return answer
end

local function prune_producers(producers_key)
  if redis.call('HLEN', producers_key) <= PRODUCERS_UNPRUNED then return end
  local oldest = server_ms() - PRODUCER_KEEP_MS
  local records = redis.call('HSCAN', producers_key, '0', 'COUNT', 200)[2]
  for i = 1, #records, 2 do
    local stamp = tonumber(string.match(records[i + 1], '^%S+ (%S+)'))
    if stamp < oldest then redis.call('HDEL', producers_key, records[i]) end
  end
end

-- Keeps the answer and returns it. deadline_ms: when the run's keys expire, 0 for never.
-- Its age counts by the server's clock: a slow caller's record would be pruned under its retries.
local function remember(producers_key, producer, n, now_ms, deadline_ms, answer)
  local stamp = digits(math.max(tonumber(now_ms), server_ms()))
  local record = n .. ' ' .. stamp .. ' ' .. table.concat(answer, ' ')
  if redis.call('HSET', producers_key, producer, record) == 1 then
    prune_producers(producers_key)
    if deadline_ms > 0 then
      redis.call('PEXPIREAT', producers_key, digits(deadline_ms))
    end
  end
  return answer
end

-- include: time
-- Appends entries to a run's journal and to the partition's feed.
local FEED_INLINE_BYTES = 1024
local FEED_TRIM_EVERY = 32

-- The last id of the feed. A stream that was emptied remembers its last id and refuses lower ones.
local function last_feed_id(feed_key)
  local last = redis.call('XREVRANGE', feed_key, '+', '-', 'COUNT', 1)[1]
  if last then return last[1] end
  if redis.call('EXISTS', feed_key) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', feed_key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- Removes entries that are older than ttl_ms, as the runs they belong to have expired. The newest entry
-- always stays: readers that have read everything find their cursor's entry, and n continues after it.
local function trim_feed(feed_key, now, ttl_ms)
  local newest = redis.call('XREVRANGE', feed_key, '+', '-', 'COUNT', 1)[1]
  if ttl_ms == 0 or not newest then return end
  local oldest_ms = math.max(0, now - ttl_ms)
  local survives = tonumber(string.match(newest[1], '^%d+')) >= oldest_ms
  redis.call('XTRIM', feed_key, 'MINID', survives and digits(oldest_ms) or newest[1])
end

-- Reads where the feed ends, once for all entries of a call. feed: its key and max, about how many entries
-- it may have.
local function open_feed(feed)
  if feed.n then return end
  local moment, n = string.match(last_feed_id(feed.key), '^(%d+)-(%d+)$')
  feed.ms, feed.moment, feed.n = tonumber(moment), moment, tonumber(n)
end

-- Whatever the clocks do, ms never decreases within a journal, and n never skips within the feed.
local function open_journal(run, run_id, key, feed, ms)
  open_feed(feed)
  ms = math.max(ms, run.last_ms)
  local moment = digits(ms)
  if ms > feed.ms then feed.ms, feed.moment = ms, moment end
  return {
    key = key, feed = feed, run_id = run_id, target = run.target, ms = ms, moment = moment,
    seq = run.version,
  }
end

-- The server reserves 4 KB for the first node of a new stream, whatever its entries need. A copy takes what
-- they need and grows with them; it has the same ids and expiry, and its readers notice nothing. A user who
-- may not call COPY keeps the larger journals: earlier versions did not ask for that right.
local function compact_journal(key)
  local copy = key .. '/'
  if CALL.may_copy == nil then
    local asked, allowed = true, true
    if redis.acl_check_cmd then asked, allowed = pcall(redis.acl_check_cmd, 'COPY', key, copy) end
    CALL.may_copy = asked and allowed
  end
  if CALL.may_copy and redis.pcall('COPY', key, copy) == 1 then redis.call('RENAME', copy, key) end
end

-- Writes version and time of the last entry to the hash. changes: more names and values.
local function write_head(run, writer, changes)
  redis.call('HSET', run.key, 'version', writer.seq, 'last_ms', writer.moment,
    unpack(changes))
end

-- list, first, last: an event as a part of a list (see events.lua); without first and last, the list.
local function add_entry(writer, list, first, last)
  first, last = first or 1, last or #list
  local feed, seq = writer.feed, writer.seq + 1
  local n = feed.n + 1
  local id, feed_id = writer.moment .. '-' .. digits(seq), feed.moment .. '-' .. digits(n)
  local size = 0
  for i = first, last, 2 do size = size + #list[i] + #list[i + 1] end
  redis.call('XADD', writer.key, id, unpack(list, first, last))
  writer.seq = seq
  if size > FEED_INLINE_BYTES then
    redis.call('XADD', feed.key, feed_id, 'run', writer.run_id, 'entry', id,
      'target', writer.target, 'big', '1', list[first], list[first + 1])
  else
    redis.call('XADD', feed.key, feed_id, 'run', writer.run_id, 'entry', id,
      'target', writer.target, unpack(list, first, last))
  end
  feed.n = n
  if n % FEED_TRIM_EVERY == 0 then redis.call('XTRIM', feed.key, 'MAXLEN', '~', feed.max) end
end

-- include: time, refusals
-- Appends entries to a run's journal and to the partition's feed.
local FEED_INLINE_BYTES = 1024
local FEED_TRIM_EVERY = 32

-- An emptied stream keeps its last id, and refuses what is not above it.
local function last_feed_id(feed_key)
  local last = redis.call('XREVRANGE', feed_key, '+', '-', 'COUNT', 1)[1]
  if last then return last[1] end
  if redis.call('EXISTS', feed_key) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', feed_key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- Removes what is older than the runs that have expired. The newest entry stays whatever its age:
-- whoever has read all finds his place, and n goes on after it.
local function trim_feed(feed_key, now, ttl_ms)
  local newest = redis.call('XREVRANGE', feed_key, '+', '-', 'COUNT', 1)[1]
  if ttl_ms == 0 or not newest then return end
  local oldest_ms = math.max(0, now - ttl_ms)
  local is_kept = tonumber(string.match(newest[1], '^%d+')) >= oldest_ms
  redis.call('XTRIM', feed_key, 'MINID', is_kept and digits(oldest_ms) or newest[1])
end

-- ms never decreases within a journal; n never skips within the feed, whatever the clocks do.
-- moment: the entries' ms as text, since most callers have it so.
local function open_journal(run, run_id, journal_key, feed_key, feed_max, moment)
  local feed_moment, feed_n = string.match(last_feed_id(feed_key), '^(%d+)-(%d+)$')
  local ms = tonumber(moment)
  if ms < run.last_ms then
    ms, moment = run.last_ms, digits(run.last_ms)
  end
  if ms > tonumber(feed_moment) then feed_moment = moment end
  -- No entry has less than three arguments.
  if feed_n % FEED_TRIM_EVERY + #ARGV / 3 >= FEED_TRIM_EVERY then
    need('XTRIM', feed_key, 'MAXLEN', '1')
  end
  return {
    key = journal_key, feed = feed_key, feed_max = feed_max, run_id = run_id, target = run.target,
    ms = ms, moment = moment, seq = run.version, feed_moment = feed_moment, feed_n = feed_n,
  }
end

-- What every write that is not hot leaves in the hash; changes: names and values besides.
local function keep_head(run, writer, changes)
  redis.call('HSET', run.key, 'version', digits(writer.seq), 'last_ms', digits(writer.ms),
    unpack(changes))
end

-- list, first, last: an event (see events.lua), or without places a list that is one.
local function add_entry(writer, list, first, last)
  first, last = first or 1, last or #list
  local seq, feed_n = writer.seq + 1, writer.feed_n + 1
  writer.seq, writer.feed_n = seq, feed_n
  local id = string.format('%s-%d', writer.moment, seq)
  local feed_id = string.format('%s-%d', writer.feed_moment, feed_n)
  local size = 0
  for i = first, last, 2 do size = size + #list[i] + #list[i + 1] end
  redis.call('XADD', writer.key, id, unpack(list, first, last))
  if size > FEED_INLINE_BYTES then
    redis.call('XADD', writer.feed, feed_id, 'run', writer.run_id, 'entry', id,
      'target', writer.target, 'big', '1', list[first], list[first + 1])
  else
    redis.call('XADD', writer.feed, feed_id, 'run', writer.run_id, 'entry', id,
      'target', writer.target, unpack(list, first, last))
  end
  if feed_n % FEED_TRIM_EVERY == 0 then
    redis.call('XTRIM', writer.feed, 'MAXLEN', '~', writer.feed_max)
  end
end

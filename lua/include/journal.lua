-- include: time
-- Appends entries to a run's journal and to the partition's feed.
local FEED_INLINE_BYTES = 1024

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

-- ms never decreases within a journal; n never skips within the feed, whatever the clocks do.
local function open_journal(run, run_id, journal_key, feed_key, feed_max, ms)
  local writer = {
    key = journal_key, feed = feed_key, feed_max = feed_max, run_id = run_id,
    target = run.target, ms = math.max(ms, run.last_ms), seq = run.version,
  }
  local feed_ms, feed_n = string.match(last_feed_id(feed_key), '^(%d+)-(%d+)$')
  writer.feed_ms, writer.feed_n = math.max(tonumber(feed_ms), writer.ms), tonumber(feed_n)
  return writer
end

-- fields: a flat list that begins with 'type'.
local function add_entry(writer, fields)
  writer.seq, writer.feed_n = writer.seq + 1, writer.feed_n + 1
  local id = digits(writer.ms) .. '-' .. digits(writer.seq)
  local feed_id = digits(writer.feed_ms) .. '-' .. digits(writer.feed_n)
  local size = 0
  for i = 1, #fields do size = size + #fields[i] end
  redis.call('XADD', writer.key, id, unpack(fields))
  if size > FEED_INLINE_BYTES then
    redis.call('XADD', writer.feed, 'MAXLEN', '~', writer.feed_max, feed_id,
      'run', writer.run_id, 'entry', id, 'target', writer.target, 'big', '1', fields[1], fields[2])
  else
    redis.call('XADD', writer.feed, 'MAXLEN', '~', writer.feed_max, feed_id,
      'run', writer.run_id, 'entry', id, 'target', writer.target, unpack(fields))
  end
end

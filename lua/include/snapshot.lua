-- include: time, events, journal, foldable
-- Trims a capped journal so that it can still be folded: a run.snapshot entry holds the whole fold, and
-- entries before the oldest snapshot that remains are not needed.

-- Writes progress that only the hash has to the journal; returns the changes for the hash. Counters that
-- were damaged by hand are left out: the journal must be able to repair the hash.
local function flush_progress(keys, writer, now)
  local v = redis.call('HMGET', keys.run, 'progress_dirty', 'progress_total',
    'progress_completed', 'progress_failed', 'progress_running')
  if v[1] ~= '1' then return {} end
  for i = 2, 5 do
    if not v[i] or #v[i] > 15 or not string.match(v[i], '^%d+$') then return {} end
  end
  add_entry(writer, {'type', 'run.progress', 'total', v[2], 'completed', v[3], 'failed', v[4],
    'running', v[5], 'at', digits(now)})
  return {'progress_dirty', '', 'progress_ms', digits(now)}
end

-- Writes the whole fold to the journal, and trims what is not needed any more.
local function write_snapshot(keys, writer, max_events, now_ms)
  if not is_foldable(redis.call('HGETALL', keys.run)) then return end
  local not_folded = {expire_at = true, live_until = true, snapshot = true, progress_dirty = true,
    owner = true, owner_lease_ms = true, letter = true}
  redis.call('HSET', keys.run, 'version', writer.seq, unpack(flush_progress(keys, writer, now_ms)))
  redis.call('HSET', keys.run, 'version', writer.seq)
  local hash, fields = redis.call('HGETALL', keys.run), {'type', 'run.snapshot'}
  for i = 1, #hash, 2 do
    if not not_folded[hash[i]] and hash[i + 1] ~= '' then
      set_field(fields, hash[i], hash[i + 1])
    end
  end
  add_entry(writer, fields)
  redis.call('HSET', keys.run, 'version', writer.seq, 'snapshot', writer.seq)
  redis.call('XTRIM', keys.journal, 'MAXLEN', '~', max_events)
end

-- Writes the hash; writes a snapshot, too, once half of the cap was written since the last one.
local function write_changes(run, keys, writer, changes, max_events, now_ms)
  redis.call('HSET', keys.run, 'version', writer.seq, 'last_ms', writer.moment, unpack(changes))
  if max_events > 0 and writer.seq - run.snapshot >= math.floor(max_events / 2) then
    write_snapshot(keys, writer, max_events, now_ms)
  end
end

-- Makes a run of the journal that restore_page.lua collected; all of it becomes visible at once.
--
-- ARGV
--   1 digest       text     which archive it is, as in the key of the collected journal
--   2 last_id      text     the id of the archive's last entry
--   3 due_ms       integer  no worker may start it before; 0: at once
--   4 input        text or ''
--   5 result       text or ''
--   6 checkpoint   text or ''
--   7 count        integer
--   8 fields       texts: name, value, for each field of the fold
-- RETURNS
--   OK version
--   EXISTS                  the id has a run; the caller finds out whether it is this one
--   ELSEWHERE               the collected journal is not complete here
-- WRITES run journal input result checkpoint restoring
-- COST 1 EXISTS, 1 XREVRANGE, 12 ZSCORE, 1 DEL, 1 COPY, 2 RENAME, 3 SET, 1 HSET, 1 HGETALL, 9 ZREM, 6 ZADD, 6 PEXPIREAT
-- include: states, time, keys, run, events, journal, foldable, rows

local COMPACTED = 32

local function restore(run_id, at)
  local digest, last_id, due_ms, input, result, checkpoint, count = unpack(ARGV, at, at + 6)
  local base, keys = CALL.base, keys_of_run(CALL.base, run_id)
  local restoring = restoring_key(base, run_id, digest)
  if redis.call('EXISTS', keys.run) == 1 then return 'EXISTS' end
  if CALL.is_older then return 'ELSEWHERE' end
  local last = redis.call('XREVRANGE', restoring, '+', '-', 'COUNT', 1)[1]
  if not last or last[1] ~= last_id then return 'ELSEWHERE' end
  local fields = {unpack(ARGV, at + 7, at + 6 + tonumber(count))}
  local state, target = field(fields, 'state'), field(fields, 'target')
  if not is_foldable(fields) then fail_damaged(keys.run, 'journal') end
  check_rows(base, target, field(fields, 'tenant') or '')
  local now, live_until, deadline = server_ms(), 0, 0
  if TERMINAL[state] then
    deadline = CALL.ttl_ms > 0 and now + CALL.ttl_ms or 0
  elseif CALL.live_ttl_ms > 0 then
    live_until = math.max(now, tonumber(due_ms)) + CALL.live_ttl_ms
    deadline = live_until + LIVE_GRACE_MS
  end
  -- RENAME replaces the tombstone of a deleted run with the same id, if one is left.
  redis.call('RENAME', restoring, keys.journal)
  -- A long journal has no room to save, and a copy of it would take long.
  local version = string.match(last_id, '-(%d+)$')
  if tonumber(version) <= COMPACTED then compact_journal(keys.journal) end
  redis.call('DEL', keys.input, keys.result, keys.checkpoint)
  for name, payload in pairs({input = input, result = result, checkpoint = checkpoint}) do
    if payload ~= '' then redis.call('SET', keys[name], payload) end
  end
  redis.call('HSET', keys.run, 'live_until', digits(live_until), unpack(fields))
  write_rows(base, run_id, keys, deadline, now)
  return 'OK ' .. version
end

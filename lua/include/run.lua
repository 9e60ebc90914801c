-- include: states, time, refusals
-- Reads and checks a run's hash before the first write.
-- The largest number of a sound hash: as a time in milliseconds it is in the year 5138.
local MOST = 100000000000000

-- what: the field or the key that is damaged.
local function fail_damaged(key, what)
  what = 'DAMAGED ' .. key .. ' ' .. what
  -- The same as fail; its function would be created again by each call of a hot script.
  error(redis.acl_check_cmd and {err = what} or '-' .. what, 0)
end

-- A field that is a number; the default where it is missing.
local function number_of(key, name, text, default)
  if not text or text == '' then return default end
  local number = string.match(text, '^%-?%d+$') and tonumber(text)
  if not number or math.abs(number) > MOST then fail_damaged(key, name) end
  return number
end

-- The same, and not below 0.
local function count_of(key, name, text, default)
  if not text or text == '' then return default end
  local number = number_of(key, name, text)
  if number < 0 then fail_damaged(key, name) end
  return number
end

-- Checks the fields that every write needs, in one pass.
local function sound_run(key, v)
  local state, version, last_ms = v[1], tonumber(v[2] or ''), tonumber(v[3] or '')
  if not state then
    if redis.call('EXISTS', key) == 1 then fail_damaged(key, 'state') end
    return nil
  end
  if state ~= 'pending' and state ~= 'running' and not TERMINAL[state] then
    fail_damaged(key, 'state')
  end
  if not (version and version >= 1 and version <= MOST and version % 1 == 0) then
    fail_damaged(key, 'version')
  end
  if not (last_ms and last_ms >= 0 and last_ms <= MOST and last_ms % 1 == 0) then
    fail_damaged(key, 'last_ms')
  end
  if not (v[4] and v[5]) then fail_damaged(key, v[4] and 'epoch' or 'target') end
  local attempt, live_until = tonumber(v[7] or '0'), tonumber(v[9] or '0')
  local snapshot, expire_at = tonumber(v[11] or '0'), tonumber(v[12] or '0')
  local sum = attempt and live_until and snapshot and expire_at
    and attempt + live_until + snapshot + expire_at
  if not (sum and sum <= MOST and sum % 1 == 0 and attempt >= 0 and live_until >= 0
      and snapshot >= 0 and expire_at >= 0) then
    for i, name in pairs({[7] = 'attempt', [9] = 'live_until', [11] = 'snapshot'}) do
      local number = tonumber(v[i] or '0')
      if not (number and number >= 0 and number <= MOST and number % 1 == 0) then
        fail_damaged(key, name)
      end
    end
    fail_damaged(key, 'expire_at')
  end
  return {
    key = key, state = state, version = version, last_ms = last_ms, target = v[4],
    created_ms = v[6], attempt = attempt, claim = v[8] or '', live_until = live_until,
    seal = v[10], snapshot = snapshot, expire_at = expire_at,
  }
end

-- Reads the fields that events need: the hot commands call this.
local function read_run(key)
  return sound_run(key, redis.call('HMGET', key, 'state', 'version', 'last_ms', 'target', 'epoch',
    'created_ms', 'attempt', 'claim', 'live_until', 'seal', 'snapshot', 'expire_at'))
end

-- Reads also the fields that changes of state need; read_work checks those that only some of them need.
-- All fields, because HMGET with 35 names, of which most runs have 15, takes twice as long. With the most
-- metadata, 64 KiB, a read takes 20 microseconds more.
local function read_whole_run(key)
  local list, all = redis.call('HGETALL', key), {}
  for i = 1, #list, 2 do all[list[i]] = list[i + 1] end
  local run = sound_run(key, {all.state, all.version, all.last_ms, all.target, all.epoch,
    all.created_ms, all.attempt, all.claim, all.live_until, all.seal, all.snapshot, all.expire_at})
  if not run then return nil end
  run.closing, run.cancel_event, run.owner = all.closing or false, all.cancel_event or false, all.owner
  run.owner_lease_ms = count_of(key, 'owner_lease_ms', all.owner_lease_ms, 0)
  run.created_ms = count_of(key, 'created_ms', run.created_ms)
  if not run.created_ms then fail_damaged(key, 'created_ms') end
  run.tenant, run.work = all.tenant or '', all
  run.traceparent, run.tracestate, run.is_dirty = all.traceparent, all.tracestate, all.progress_dirty == '1'
  run.payloads = {input = all.input_size or false, checkpoint = all.checkpoint_size or false,
    result = all.result_size or false}
  return run
end

-- The id of a journal's last entry; false when it has none.
local function last_entry_id(journal)
  local last = redis.call('XREVRANGE', journal, '+', '-', 'COUNT', 1)[1]
  return last and last[1]
end

-- Before the first write: the journal must end where the hash says, or the next entry would get a seq
-- that another entry has already. A lost journal continues after the hash's version.
local function check_journal(run, journal)
  local last = last_entry_id(journal)
  if last and last ~= digits(run.last_ms) .. '-' .. digits(run.version) then
    fail_damaged(run.key, 'version')
  end
  return last
end

-- Like read_whole_run, for scripts that serve many runs: a damaged run must not stop the others.
-- Returns nil and true for a run that exists but is damaged.
local function try_run(keys)
  local readable, run = try(read_whole_run, keys.run)
  if not readable then return nil, true end
  if not run then return nil, false end
  local checked, last = try(check_journal, run, keys.journal)
  if not (checked and last) then return nil, true end
  return run, false
end

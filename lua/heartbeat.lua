-- Extends the leases of a worker's claims and returns a notice for those that need one: lost, cancel
-- (repeated until the run ends), or silent (once for each silence).
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 lease_ms     integer
--   2 live_ttl_ms  integer
--   3 feed_max     integer
--   4 count        integer
--   5 runs         texts: run_id, claim and silent_ms (0: never silent) of each
-- RETURNS
--   OK (claim notice)*  each notice: lost, cancel or silent
-- WRITES base feed
-- COST a run: 1 HGETALL, 1 XREVRANGE, 1 ZREM, 1 ZADD
-- include: time, refusals, keys, expiry, run, journal, queue

local base, lease_ms, live_ttl_ms = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local feed = {key = KEYS[2], max = ARGV[3]}
local now, answer = server_ms(), {'OK'}

local function note_silence(run, run_id, keys)
  local writer = open_journal(run, run_id, keys.journal, feed, now)
  add_entry(writer, {'type', 'run.silent', 'attempt', digits(run.attempt), 'worker', run.worker,
    'seconds', digits(math.floor((now - run.last_ms) / 1000))})
  write_head(run, writer, {'silent', digits(writer.seq)})
end

local function extend(run, run_id, keys, silent_ms)
  read_work(run)
  -- ZREM first: a server without free memory refuses a script whose first write can grow. With ZADD
  -- alone every lease would run out there, and all runs would be taken over, which writes far more.
  redis.call('ZREM', leases_key(base), run_id)
  redis.call('ZADD', leases_key(base), digits(now + lease_ms), run_id)
  touch_live(run, keys, now, live_ttl_ms)
  if run.cancel_requested then return 'cancel' end
  local is_silent = silent_ms ~= 0 and now - run.last_ms > silent_ms and run.silent ~= run.version
  if not is_silent then return nil end
  return try(note_silence, run, run_id, keys) and 'silent' or nil
end

local function look_at(run_id, claim, silent_ms)
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  if damaged then error('DAMAGED') end
  if not run or run.state ~= 'running' or run.claim ~= claim then return 'lost' end
  return extend(run, run_id, keys, silent_ms)
end

for i = 1, tonumber(ARGV[4]) do
  local run_id, claim, silent_ms = ARGV[2 + 3 * i], ARGV[3 + 3 * i], tonumber(ARGV[4 + 3 * i])
  local done, what = try(look_at, run_id, claim, silent_ms)
  if not done then
    -- The run is damaged: its lease is left to run out, and tend, which takes it back, reports it.
    redis.call('ZADD', leases_key(base), 'NX', digits(now), run_id)
  end
  if what then answer[#answer + 1], answer[#answer + 2] = claim, what end
end
return answer

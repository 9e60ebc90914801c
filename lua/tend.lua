-- Housekeeping, by one worker at a time: requeues the runs of workers that are gone, ends overdue
-- runs, wakes idle workers where there is work, restores lost rows of queues and leases, and trims the
-- feed by time.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 worker       text
--   2 interval_ms  integer
--   3 lease_ms     integer
--   4 feed_max     integer
--   5 ttl_ms       integer
--   6 limit        integer
--   7 cursor       text or ''  where the comparison of rows goes on, from the last answer
--   8 targets      texts
-- RETURNS
--   OK more cursor (name fate)*  more: 1 to call again; a run is queued, ended or damaged, a key wrong_type
--   HELD worker                    another worker is doing it
-- WRITES base feed
-- COST 1 GET, 1 SET, 4 ZRANGEBYSCORE, 1 ZRANGEBYLEX; a lost run: as release; 50 HGETALL and XREVRANGE
-- include: time, refusals, keys, expiry, run, index, journal, queue, cancel, owners, scrub

local base, worker, feed = KEYS[1], ARGV[1], {key = KEYS[2], max = ARGV[4]}
local lease_ms, ttl_ms = tonumber(ARGV[3]), tonumber(ARGV[5])
local limit, cursor, now = tonumber(ARGV[6]), ARGV[7], server_ms()

local fates = {}
local function report(name, fate)
  fates[#fates + 1], fates[#fates + 2] = name, fate
end

-- Of all workers one at a time does the housekeeping: the holder's name stands in a key that expires.
-- This is only about load. If two of them did it at once (the key expired, or was deleted), each step
-- would still be safe: every script sees the writes of the one before, and a run that was requeued
-- has neither its lease nor its old claim any more.
local readable, holder = try(redis.call, 'GET', sweeper_key(base))
if holder and holder ~= worker then return {'HELD', holder} end
if not readable then
  report(sweeper_key(base), 'wrong_type')
elseif not holder then
  -- DEL first: a server without free memory refuses a script whose first write can grow.
  redis.call('DEL', sweeper_key(base))
  redis.call('SET', sweeper_key(base), worker, 'NX', 'PX', ARGV[2])
end

local function take_back(run, run_id, keys)
  read_work(run)
  local writer = open_journal(run, run_id, keys.journal, feed, now)
  local p = {reason = 'lease_expired', due_ms = 0, error = ''}
  if cancel_or_wait_again(run, run_id, keys, base, writer, 'worker_lost', p, now, ttl_ms) then
    expire_ended(run, keys)
    return 'ended'
  end
  return 'queued'
end

-- The worker whose lease ran out may still be running, and send a heartbeat a moment later. The run
-- leaves the leases and loses its claim in one step, so that the heartbeat is answered "lost" and the
-- worker's writes are fenced. If only the lease were removed, the old worker and the next one could
-- both write to the run, and the journal would mix two executions.
local function requeue_run(run_id)
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  redis.call('ZREM', leases_key(base), run_id)
  if damaged then
    report(run_id, 'damaged')
  elseif run and run.state == 'running' and run.claim ~= '' then
    report(run_id, take_back(run, run_id, keys))
  end
end

local function requeue_lost()
  local expired = redis.call('ZRANGEBYSCORE', leases_key(base), '-inf', digits(now),
    'LIMIT', 0, limit)
  if #expired > 0 then
    check_state_rows(base)
    open_feed(feed)
  end
  for _, run_id in ipairs(expired) do
    if not try(requeue_run, run_id) then report(run_id, 'damaged') end
  end
  return #expired
end

local _, requeued = try(requeue_lost)
local _, most, ended = do_housekeeping(base, feed, ttl_ms, now, limit, report)
for _, run_id in ipairs(ended) do report(run_id, 'ended') end
local scrubbed, further = try(scrub, base, cursor, now, lease_ms)
for i = 8, #ARGV do try(wake_if_ready, base, ARGV[i], now) end
local more = math.max(requeued or 0, most) == limit and '1' or '0'
return {'OK', more, scrubbed and further or 'pending ', unpack(fates)}

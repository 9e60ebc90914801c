-- Does for all what nobody does for himself: hands on the runs of workers that are gone, ends what
-- is overdue, wakes workers where there is work, heals queues and leases from the runs, and trims
-- the feed by time.
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
--   7 cursor       text or ''
--   8 targets      texts
-- RETURNS
--   OK more cursor (run_id fate)*  more: 1 when there may be more to do; queued, ended or damaged
--   HELD worker                    another one does it at present
-- WRITES base feed
-- COST 1 GET, 1 SET, 4 ZRANGEBYSCORE, 1 ZRANGEBYLEX; a lost run: as release; 50 HMGET and XREVRANGE
-- include: owners, scrub

local base, feed, worker = KEYS[1], KEYS[2], ARGV[1]
local lease_ms, feed_max, ttl_ms = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local limit, cursor, now = tonumber(ARGV[6]), ARGV[7], server_ms()

local holder = redis.call('GET', sweeper_key(base))
if holder and holder ~= worker then return {'HELD', holder} end
if not holder then redis.call('SET', sweeper_key(base), worker, 'NX', 'PX', ARGV[2]) end

local fates = {}
local function tell(run_id, fate)
  fates[#fates + 1] = run_id
  fates[#fates + 1] = fate
end

local function take_back(run, run_id, keys)
  local writer = open_journal(run, run_id, keys.journal, feed, feed_max, digits(now))
  read_work(run)
  local p = {reason = 'lease_expired', due_ms = 0, error = ''}
  if let_go(run, run_id, keys, base, writer, 'worker_lost', p, now, ttl_ms) then
    expire_ended(run, keys)
    return 'ended'
  end
  return 'queued'
end

local expired = redis.call('ZRANGEBYSCORE', leases_key(base), '-inf', digits(now), 'LIMIT', 0, limit)
local function hand_on(run_id)
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  redis.call('ZREM', leases_key(base), run_id)
  if damaged then
    tell(run_id, 'damaged')
  elseif run and run.state == 'running' and run.claim ~= '' then
    tell(run_id, take_back(run, run_id, keys))
  end
end

for _, run_id in ipairs(expired) do
  if not try(hand_on, run_id) then tell(run_id, 'damaged') end
end
local _, lost_seen, lost = fail_lost(base, feed, feed_max, ttl_ms, now, limit)
local _, overdue_seen, overdue = fail_overdue(base, feed, feed_max, ttl_ms, now, limit)
for _, run_id in ipairs(lost) do tell(run_id, 'ended') end
for _, run_id in ipairs(overdue) do tell(run_id, 'ended') end
local removed = remove_expired(base, now, limit)
cursor = scrub(base, cursor, now, lease_ms)
for i = 8, #ARGV do try(wake_if_ready, base, ARGV[i], now) end
try(trim_feed, feed, now, ttl_ms)
local most = math.max(#expired, lost_seen, overdue_seen, removed)
return {'OK', most == limit and '1' or '0', cursor, unpack(fates)}

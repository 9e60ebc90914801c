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
--   OK more cursor (name fate)*  1: call again; runs queued, ended or damaged, keys that are odd
--   HELD worker                    another one does it at present
-- WRITES base feed
-- COST 1 GET, 1 SET, 4 ZRANGEBYSCORE, 1 ZRANGEBYLEX; a lost run: as release; 50 HMGET and XREVRANGE
-- include: owners, scrub

local base, feed, worker = KEYS[1], KEYS[2], ARGV[1]
local lease_ms, feed_max, ttl_ms = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local limit, cursor, now = tonumber(ARGV[6]), ARGV[7], server_ms()

local fates = {}
local function tell(name, fate)
  fates[#fates + 1], fates[#fates + 2] = name, fate
end

local readable, holder = try(redis.call, 'GET', sweeper_key(base))
if holder and holder ~= worker then return {'HELD', holder} end
if not readable then
  tell(sweeper_key(base), 'odd')
elseif not holder then
  -- A server without free memory refuses a script whose first write could grow; this one frees.
  redis.call('DEL', sweeper_key(base))
  redis.call('SET', sweeper_key(base), worker, 'NX', 'PX', ARGV[2])
end

local function take_back(run, run_id, keys)
  read_work(run)
  local writer = open_journal(run, run_id, keys.journal, feed, feed_max, digits(now))
  local p = {reason = 'lease_expired', due_ms = 0, error = ''}
  if let_go(run, run_id, keys, base, writer, 'worker_lost', p, now, ttl_ms) then
    expire_ended(run, keys)
    return 'ended'
  end
  return 'queued'
end

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

local function hand_on_lost()
  local expired = redis.call('ZRANGEBYSCORE', leases_key(base), '-inf', digits(now),
    'LIMIT', 0, limit)
  if #expired > 0 then
    check_places(base)
    last_feed_id(feed)
  end
  for _, run_id in ipairs(expired) do
    if not try(hand_on, run_id) then tell(run_id, 'damaged') end
  end
  return #expired
end

local _, handed_on = try(hand_on_lost)
local _, most, ended = keep_house(base, feed, feed_max, ttl_ms, now, limit, tell)
for _, run_id in ipairs(ended) do tell(run_id, 'ended') end
local scrubbed, further = try(scrub, base, cursor, now, lease_ms)
for i = 8, #ARGV do try(wake_if_ready, base, ARGV[i], now) end
local more = math.max(handed_on or 0, most) == limit and '1' or '0'
return {'OK', more, scrubbed and further or 'pending ', unpack(fates)}

-- Hands waiting runs to a worker: pops them, takes the leases, starts them. An entry of the queue
-- whose run is gone or no longer waits is removed; one whose run is damaged too, and told.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 worker      text
--   2 lease_ms    integer
--   3 feed_max    integer
--   4 count       integer
--   5 targets     integer
--   6 names       texts: the targets, then count claim tokens
-- RETURNS
--   OK (run_id target attempt claim version input)*  the runs that were claimed; those of attempt 0 are damaged
-- WRITES base feed
-- COST 1 or 2 ZRANGEBYSCORE a target; a run: as set_state, 1 ZADD, 1 GET
-- include: lifecycle

local base, feed, worker = KEYS[1], KEYS[2], ARGV[1]
local lease_ms, feed_max, count = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local targets = tonumber(ARGV[5])
local now, claimed, answer = server_ms(), 0, {'OK'}

local function start(run, run_id, keys, claim)
  local attempt = digits(run.attempt + 1)
  local writer = open_journal(run, run_id, keys.journal, feed, feed_max, digits(now))
  local changes = enter_state(run, run_id, keys, base, writer, 'running',
    {'attempt', attempt, 'worker', worker, 'claim', claim})
  add_entry(writer, {'type', 'agent_started', 'agent', run.target, 'attempt', attempt})
  local version = digits(writer.seq)
  redis.call('HSET', keys.run, 'version', version, 'last_ms', digits(writer.ms), unpack(changes))
  redis.call('ZADD', leases_key(base), digits(now + lease_ms), run_id)
  local input = redis.call('GET', keys.input) or ''
  for _, text in ipairs({run_id, run.target, attempt, claim, version, input}) do
    answer[#answer + 1] = text
  end
end

for i = 1, targets do
  local queue = queue_key(base, ARGV[5 + i])
  -- What is removed makes room for more: dead entries must not hide the runs behind them.
  while claimed < count do
    local due = redis.call('ZRANGEBYSCORE', queue, '-inf', digits(now), 'LIMIT', 0, count - claimed)
    if #due == 0 then break end
    for _, run_id in ipairs(due) do
      local keys = keys_of_run(base, run_id)
      local run, damaged = try_run(keys)
      redis.call('ZREM', queue, run_id)
      if damaged then
        for _, text in ipairs({run_id, ARGV[5 + i], '0', '', '0', ''}) do
          answer[#answer + 1] = text
        end
      end
      if run and run.state == 'pending' then
        claimed = claimed + 1
        start(run, run_id, keys, ARGV[5 + targets + claimed])
      end
    end
  end
end
return answer

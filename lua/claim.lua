-- Hands waiting runs to a worker: takes them out of the queue, takes their leases, starts them. Delayed
-- runs that are due become ready first. A queue entry is removed without a start when its run is gone
-- or does not wait; when its run is damaged, which is reported; and when its run may not be started
-- again: that run ends. A target whose queue cannot be read is skipped and reported.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 worker      text
--   2 host        text or ''
--   3 lease_ms    integer
--   4 feed_max    integer
--   5 ttl_ms      integer
--   6 count       integer
--   7 targets     integer
--   8 partitions  text
--   9 rules       texts: name and max_attempts of each target, then count claim tokens
-- RETURNS
--   OK more next_due_ms (kind size fields)*  more: 1 if another call may find runs; -1: no run is delayed
--   UNCONFIRMED             this number of partitions is not recorded here; nothing was written
-- WRITES base feed
-- COST 1 HGET, 1 EXISTS, 1 ZCARD and up to 2 ZRANGEBYSCORE a target, 6 ZSCORE; a run: as set_state, 1 ZADD, 2 GET
-- include: time, refusals, keys, expiry, run, events, index, journal, queue, lifecycle, cancel, claiming, partition

local LOOKED_AT, REPLY_BYTES = 500, 1048576
local base, worker, host, feed = KEYS[1], ARGV[1], ARGV[2], {key = KEYS[2], max = ARGV[4]}
local lease_ms, ttl_ms = tonumber(ARGV[3]), tonumber(ARGV[5])
local count, targets = tonumber(ARGV[6]), tonumber(ARGV[7])
local now, claimed, looked_at, bytes, next_due = server_ms(), 0, 0, 0, -1
local answer, any_paused = {'OK', '0', '-1'}, false

local function add_group(kind, fields)
  answer[#answer + 1], answer[#answer + 2] = kind, digits(#fields)
  add_all(answer, fields)
end

-- Two workers can ask for the same run at once. The script is atomic, so the second one finds neither
-- the queue entry nor the state pending. A worker that lost its lease can still be running: the new
-- claim token replaces the old one in the hash here, in the same step that starts the run, and from
-- this moment every write that carries the old token is answered FENCED. If the token were written
-- later, an event of the old execution could come between and be taken for one of the new execution.
local function start(run, run_id, writer, claim, payloads)
  local attempt = digits(run.attempt + 1)
  local extra = {'attempt', attempt, 'worker', worker, 'claim', claim}
  if host ~= '' then set_field(extra, 'host', host) end
  local changes = enter_state(run, run_id, base, writer, 'running', extra)
  add_entry(writer, {'type', 'agent_started', 'agent', run.target, 'attempt', attempt})
  write_head(run, writer, changes)
  redis.call('ZADD', leases_key(base), now + lease_ms, run_id)
  local fields = {'run_id', run_id, 'target', run.target, 'attempt', attempt, 'claim', claim,
    'version', digits(writer.seq), 'failures', digits(run.failures), 'excused', digits(run.excused)}
  bytes = bytes + add_payloads(fields, payloads)
  add_group('claimed', fields)
end

local function take(target, run_id, max_attempts)
  local keys = keys_of_run(base, run_id)
  local run, damaged = try_run(keys)
  if not run or run.state ~= 'pending' then return not damaged end
  read_work(run)
  local payloads = read_payloads(run, base, run_id, now)
  local writer = open_journal(run, run_id, keys.journal, feed, now)
  local reason, why = refusal(run, max_attempts, now)
  if reason then
    end_dead(run, run_id, keys, base, writer, reason, why, now, ttl_ms)
    expire_ended(run, keys)
    add_group('ended', {'run_id', run_id, 'reason', reason})
  else
    claimed = claimed + 1
    start(run, run_id, writer, ARGV[8 + 2 * targets + claimed], payloads)
  end
  return true
end

local function is_over() return looked_at >= LOOKED_AT or bytes >= REPLY_BYTES end

local function room() return math.min(count - claimed, LOOKED_AT - looked_at) end

local function take_all(target, ready, max_attempts)
  for _, run_id in ipairs(ready) do
    looked_at = looked_at + 1
    redis.call('ZREM', queue_key(base, target), run_id)
    local done, sound = try(take, target, run_id, max_attempts)
    if not (done and sound) then add_group('damaged', {'run_id', run_id}) end
    if is_over() then return end
  end
end

local function serve(target, max_attempts)
  if any_paused and redis.call('SISMEMBER', paused_key(base), target) == 1 then return end
  local ready, waiting, due = read_queue(base, target, now, room())
  -- Entries that only get removed do not count: they must not hide the runs behind them.
  while #ready > 0 and not is_over() do
    take_all(target, ready, max_attempts)
    waiting = waiting - #ready
    if waiting == 0 or claimed >= count or is_over() then break end
    ready = ready_runs(base, target, room())
  end
  if due >= 0 and (next_due < 0 or due < next_due) then next_due = due end
end

local refused = unconfirmed(base, ARGV[8])
if refused then return refused end
-- Every claim writes these keys: one of another type must refuse the call before it takes a run.
check_zsets({overdue_key(base), expiring_key(base), owners_key(base), state_index_key(base, 'pending'),
  state_index_key(base, 'running'), state_index_key(base, 'failed')})
open_feed(feed)
any_paused = redis.call('EXISTS', paused_key(base)) == 1
-- This changes nothing. A replica and a server without free memory refuse it, so that the call fails
-- before it takes a run that could not be executed there. An idle worker learns of it in this way, too.
redis.call('ZADD', leases_key(base), 'XX', '0', '')
for i = 1, targets do
  local target = ARGV[7 + 2 * i]
  if not try(serve, target, tonumber(ARGV[8 + 2 * i])) then add_group('unserved', {'target', target}) end
end
if is_over() and claimed < count then answer[2] = '1' end
answer[3] = digits(next_due)
return answer

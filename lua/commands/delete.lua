-- Removes a run. Its journal stays for a minute as a tombstone that ends with run.deleted, because
-- deleting a key does not wake the readers that block on it.
--
-- ARGV
--   1 force        0 or 1
-- RETURNS
--   OK version
--   NOT_TERMINAL state
--   NOT_FOUND
-- WRITES run journal producers input result checkpoint
-- COST 1 HGETALL, 1 XREVRANGE, 1 DEL, 9 ZREM, 2 XADD, 2 PEXPIREAT
-- include: states, time, keys, run, index, journal, queue

local TOMBSTONE_MS = 60000

local function delete(run_id, at)
  local force, base = ARGV[at], CALL.base
  local keys = keys_of_run(base, run_id)
  local run = read_whole_run(keys.run)
  if not run then return 'NOT_FOUND' end
  if not TERMINAL[run.state] and force ~= '1' then return 'NOT_TERMINAL ' .. run.state end

  local now = server_ms()
  -- A hash that is behind its journal must not prevent the delete: the entry goes after both.
  local last = last_entry_id(keys.journal)
  local ms, seq = string.match(last or '', '^(%d+)-(%d+)$')
  run.last_ms = math.max(run.last_ms, tonumber(ms or 0))
  run.version = math.max(run.version, tonumber(seq or 0))
  local writer = open_journal(run, run_id, keys.journal, CALL.feed, now)
  local member = index_member(run.created_ms, run_id)
  redis.call('DEL', keys.run, keys.input, keys.result, keys.checkpoint)
  remove_from_indexes(base, run.target, run.tenant, member)
  remove_member(state_index_key(base, run.state), member)
  remove_member(expiring_key(base), removal_row(run, member))
  remove_member(overdue_key(base), removal_row(run, member))
  remove_member(leases_key(base), run_id)
  remove_member(owners_key(base), run_id)
  remove_from_queue(base, run.target, run_id)
  add_entry(writer, {'type', 'run.deleted'})
  redis.call('PEXPIREAT', keys.journal, digits(now + TOMBSTONE_MS))
  redis.call('PEXPIREAT', keys.producers, digits(now + TOMBSTONE_MS))
  return 'OK ' .. digits(writer.seq)
end

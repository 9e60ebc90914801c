-- include: overdue
-- The writes that begin a run, for create and submit. A deleted run leaves its journal behind for
-- a minute as a tombstone; a new life of the id begins after it, so blocked readers see it.
local function create_run(p)
  local keys = given_run_keys()
  local now = server_ms()
  local tombstone = redis.call('XREVRANGE', keys.journal, '+', '-', 'COUNT', 1)[1]
  local ms = now
  if tombstone then
    ms = math.max(now, tonumber(string.match(tombstone[1], '^(%d+)')) + 1)
  end
  local live_until = p.live_ttl_ms > 0 and now + p.live_ttl_ms or 0
  local run = {target = p.target, version = 0, last_ms = 0}
  -- Before the first write: it refuses what is no feed.
  local writer = open_journal(run, p.run_id, keys.journal, p.feed, p.feed_max, digits(ms))
  -- The producers stay: a retry of the delete must not find that it never was.
  if tombstone then redis.call('DEL', keys.journal) end
  local fields = {'type', 'run.created', 'target', p.target, 'epoch', p.epoch}
  local hash = {'target', p.target, 'state', 'pending', 'version', '1', 'epoch', p.epoch,
    'last_ms', digits(ms), 'created_ms', digits(ms), 'attempt', '0'}
  if p.input ~= '' then
    for _, f in ipairs({fields, hash}) do
      set_field(f, 'input_size', p.input_size)
      set_field(f, 'input_sha256', p.input_sha256)
    end
    redis.call('SET', keys.input, p.input)
  end
  if p.metadata ~= '' then
    set_field(fields, 'metadata_json', p.metadata)
    set_field(hash, 'metadata_json', p.metadata)
  end
  set_field(hash, 'live_until', digits(live_until))
  redis.call('HSET', keys.run, unpack(hash))
  add_entry(writer, fields)
  local member = index_member(ms, p.run_id)
  redis.call('ZADD', index_key(p.base), 0, member)
  redis.call('ZADD', state_index_key(p.base, 'pending'), 0, member)
  redis.call('ZADD', target_index_key(p.base, p.target), 0, member)
  local deadline = live_until > 0 and live_until + LIVE_GRACE_MS or 0
  if live_until > 0 then
    redis.call('ZADD', overdue_key(p.base), digits(live_until), removal_row(p.target, member))
  end
  local answer = remember(keys.producers, p.producer, p.n, deadline, {'OK', '1'})
  if deadline > 0 then expire_keys(keys, deadline) else persist_keys(keys) end
  sweep_a_little(p.base, p.feed, p.feed_max, p.ttl_ms, now)
  return now, answer
end

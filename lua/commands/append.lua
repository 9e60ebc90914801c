-- Appends batches of events to a run that has not ended: of each batch all events, or none.
--
-- ARGV
--   1 batches      integer
--   2 writes       groups: expected integer or '', claim text or '', count integer, events texts
-- RETURNS
--   NOT_FOUND
--   each OK version
--   each FENCED
--   each TERMINAL state
--   each WRONG_VERSION version
-- WRITES run journal
-- COST 1 HMGET, 2 XADD an event, 1 HSET; one event in 32 an XTRIM
-- include: states, time, keys, expiry, run, events, journal, snapshot

local function append(run_id, at)
  local keys = keys_of_events(CALL.base, run_id)
  local run = read_run(keys.run)
  if not run then return 'NOT_FOUND' end
  local writer, changes, answers, last_ok, version = nil, {}, {}, nil, run.version
  local live_until = touch_due(run, CALL.now_ms, CALL.live_ttl_ms)
  local batches = tonumber(ARGV[at])
  at = at + 1
  for i = 1, batches do
    local expected, claim, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local refused = nil
    at = at + 3
    -- Each batch has a caller of its own: one that is refused must not stop the others.
    if claim ~= '' and claim ~= run.claim then
      refused = 'FENCED'
    elseif TERMINAL[run.state] then
      refused = 'TERMINAL ' .. run.state
    elseif expected ~= '' and tonumber(expected) ~= version then
      refused = 'WRONG_VERSION ' .. digits(version)
    elseif not writer then
      writer = open_journal(run, run_id, keys.journal, CALL.feed, CALL.now_ms)
    end
    for _ = 1, count do
      local list, first, last = ARGV, at + 1, at + ARGV[at]
      at = last + 1
      if not refused then
        if claim ~= '' then
          list = {unpack(ARGV, first, last)}
          set_field(list, 'attempt', digits(run.attempt))
          first, last = 1, #list
        end
        add_entry(writer, list, first, last)
        note_event(run, writer.seq, changes, list, first, last)
      end
    end
    if not refused then version, last_ok = writer.seq, i end
    answers[i] = refused or 'OK ' .. digits(version)
  end
  if writer then
    write_changes(run, keys, writer, changes, CALL.max_events, CALL.now_ms)
    -- If a snapshot was added, its entry is the run's last one. The last batch that was written answers
    -- with that version: its caller may pass it as the next expected version.
    if writer.seq > version then answers[last_ok] = 'OK ' .. digits(writer.seq) end
    if live_until then move_live(run, keys_of_run(CALL.base, run_id), live_until) end
  end
  return table.concat(answers, '|')
end

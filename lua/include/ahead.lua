-- include: keys
-- Looks at all commands of a call at once: one EXISTS for the runs of all of them costs little more than
-- one for a single run. A call carries fewer than 20 commands that create or finish (CALL_MICROSECONDS in
-- stores/redis/writes.py), far below the limit of unpack, which is about 8,000.

-- Calls visit with the name and the run id of each command of the call; commit.lua says where they are.
local function each_command(visit)
  local at = 14
  for _ = 1, tonumber(ARGV[at - 1]) do
    visit(ARGV[at], ARGV[at + 1])
    at = at + 3 + tonumber(ARGV[at + 2])
  end
end

-- The new ids of the call that had neither a run nor a journal when it began, and have no other command
-- in it, which might have created the run meanwhile. Empty if any new id had one: then each is looked up.
local function find_absent()
  local counts, keys, new = {}, {}, {}
  each_command(function(name, run_id)
    counts[run_id] = (counts[run_id] or 0) + 1
    if name == 'create' or name == 'submit' or name == 'requeue' then
      new[#new + 1] = run_id
      keys[#keys + 1], keys[#keys + 2] = run_key(CALL.base, run_id), journal_key(CALL.base, run_id)
    end
  end)
  local absent = {}
  if redis.call('EXISTS', unpack(keys)) == 0 then
    for _, run_id in ipairs(new) do absent[run_id] = counts[run_id] == 1 end
  end
  return absent
end

-- Whether any run that the call finishes has the record of programs of an earlier version.
local function find_producers()
  local keys = {}
  each_command(function(name, run_id)
    if name == 'finish' then keys[#keys + 1] = producers_key(CALL.base, run_id) end
  end)
  return redis.call('EXISTS', unpack(keys)) > 0
end

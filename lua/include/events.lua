-- An event is a part of a flat list: name, value, name, value, and the first name is 'type'. As it
-- comes, the list is ARGV: a count of texts, then that many. To copy it would cost as much as XADD.

-- The events of a script that keeps them all, each a list of its own.
local function read_events(first, count)
  local events, at = {}, first
  for i = 1, count do
    local last = at + ARGV[at]
    events[i] = {unpack(ARGV, at + 1, last)}
    at = last + 1
  end
  return events
end

local function field(list, name, first, last)
  for i = first or 1, last or #list, 2 do
    if list[i] == name then return list[i + 1] end
  end
  return nil
end

local function set_field(fields, name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

-- The last word of a run: of its group, or of an agent that is the run's target or unnamed.
local function is_closing(target, list, first, last)
  local kind = list[first + 1]
  if kind == 'group_completed' then return true end
  if kind ~= 'agent_completed' and kind ~= 'agent_failed' then return false end
  local agent = field(list, 'agent', first, last)
  return agent == nil or agent == '' or agent == target
end

-- Remembers where the first closing and the first run_cancelled event are.
local function note_event(run, seq, changes, list, first, last)
  local place = nil
  if list[first + 1] == 'run_cancelled' then place = 'cancel_event' end
  if is_closing(run.target, list, first, last) then place = 'closing' end
  if not place then return end
  -- So few events are one of these that no other write reads for them.
  if run[place] == nil then run[place] = redis.call('HGET', run.key, place) end
  if run[place] then return end
  run[place] = digits(seq)
  set_field(changes, place, run[place])
end

-- include: time
-- An event is a part of a flat list: name, value, name, value, and the first name is 'type'. The list
-- is ARGV itself, where each event follows its number of texts: a copy would cost as much as XADD.

-- Copies all events, each into a list of its own, for scripts that are not hot.
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

local function add_all(fields, more)
  local count = #fields
  for i = 1, #more do fields[count + i] = more[i] end
end

-- Whether an event closes the run: its group is complete, or its target's agent, or an unnamed one.
local function is_closing(target, list, first, last)
  local kind = list[first + 1]
  if kind == 'group_completed' then return true end
  if kind ~= 'agent_completed' and kind ~= 'agent_failed' then return false end
  local agent = field(list, 'agent', first, last)
  return agent == nil or agent == '' or agent == target
end

-- Records the seq of the first closing and of the first run_cancelled event.
local function note_event(run, seq, changes, list, first, last)
  local name = nil
  if list[first + 1] == 'run_cancelled' then name = 'cancel_event' end
  if is_closing(run.target, list, first, last) then name = 'closing' end
  if not name then return end
  -- Read only here: so few events are of these types that other writes should not pay for it.
  if run[name] == nil then run[name] = redis.call('HGET', run.key, name) end
  if run[name] then return end
  run[name] = digits(seq)
  set_field(changes, name, run[name])
end

-- Events as they come in ARGV: each is a count of texts, then that many: name, value, name, value.
local function read_events(first, count)
  local events, at = {}, first
  for i = 1, count do
    local size = tonumber(ARGV[at])
    local fields = {}
    for j = 1, size do fields[j] = ARGV[at + j] end
    events[i] = fields
    at = at + size + 1
  end
  return events, at
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

local function set_field(fields, name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

-- The last word of a run: of its group, or of an agent that is the run's target or unnamed.
local function is_closing(fields, target)
  local kind = fields[2]
  if kind == 'group_completed' then return true end
  if kind ~= 'agent_completed' and kind ~= 'agent_failed' then return false end
  local agent = field(fields, 'agent')
  return agent == nil or agent == '' or agent == target
end

-- Remembers where the first closing and the first run_cancelled event are.
local function note_event(run, fields, seq, changes)
  if not run.closing and is_closing(fields, run.target) then
    run.closing = digits(seq)
    set_field(changes, 'closing', run.closing)
  elseif not run.cancel_event and fields[2] == 'run_cancelled' then
    run.cancel_event = digits(seq)
    set_field(changes, 'cancel_event', run.cancel_event)
  end
end

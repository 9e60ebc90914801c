-- The server's clock, for what needs one clock: leases, expiry, seals, ends.
local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Does a part of a script that must not cost the rest of it. False: it failed, for a reason of its
-- own, such as a key of a wrong type. What the server refuses everybody is raised.
local function try(part, ...)
  local done, found = pcall(part, ...)
  if done then return true, found end
  local why = type(found) == 'table' and tostring(found.err) or tostring(found)
  for _, code in ipairs({'OOM command', 'NOPERM ', 'MISCONF ', 'READONLY ', 'NOREPLICAS '}) do
    if string.find(why, code, 1, true) then error(found, 0) end
  end
  return false
end

-- Lua prints large numbers as 1.79e+15; ids and fields need all digits.
local function digits(number)
  return string.format('%.0f', number)
end

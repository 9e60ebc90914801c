-- The server's clock, for what needs one clock: leases, expiry, seals, ends.
local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Lua prints large numbers as 1.79e+15; ids and fields need all digits.
local function digits(number)
  return string.format('%.0f', number)
end

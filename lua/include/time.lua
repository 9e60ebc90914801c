-- The server's clock: leases, expiry, seals and ends must all be judged by one clock.
local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Lua would print a large number as 1.79e+15; ids and fields need all digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- The server's clock: leases, expiry, seals and ends must all be judged by one clock. Read once a call.
local function server_ms()
  if not CALL.server_ms then
    local time = redis.call('TIME')
    CALL.server_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  return CALL.server_ms
end

-- Lua would print a large number as 1.79e+15; ids and fields need all digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- The server's clock: leases, expiry, seals and ends must all be judged by one clock. Read once a call.
local function server_ms()
  if not CALL.server_ms then
    local time = redis.call('TIME')
    CALL.server_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  return CALL.server_ms
end

-- '%d' takes half the time of '%.0f', but is only right where a C long has 64 bits. Not string.format,
-- which does not exist yet while a library is loaded.
local DIGITS = ('%d'):format(1099511627776) == '1099511627776' and '%d' or '%.0f'

-- Lua would print a large number as 1.79e+15; ids, fields and times of expiry need all digits. Redis 7.2.0
-- to 7.2.4 do the same to a number that is an argument of a command and ends in eight zeros. So only
-- scores, which are read as floating point, and small numbers may be arguments as they are.
local function digits(number)
  return string.format(DIGITS, number)
end

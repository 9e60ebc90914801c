-- Errors: raised with a code, asked for before they happen, kept from the rest of a script.

-- Ends the script with an error that begins with a code. Before 7.0 the server cannot raise a table,
-- and puts words of its own before a text: there the code is found by the sign before it.
local function fail(why)
  error(redis.acl_check_cmd and {err = why} or '-' .. why, 0)
end

-- Before the first write: refuses what would be denied later. Only for what the hot scripts seldom
-- need; for all else stores/redis/rights.py puts a check before the script. The arguments are such
-- that nothing changes where there is no key: servers before 7.0 can only be asked by a call.
local function need(command, key, ...)
  if not redis.acl_check_cmd then
    redis.call(command, key .. '/', ...)
  elseif not redis.acl_check_cmd(command, key, ...) then
    error({err = 'NOPERM the user may not call ' .. command}, 0)
  end
end

-- What the server refuses every script, and how the servers name a right that the user lacks.
local function is_refused_to_all(why)
  for _, words in ipairs({'OOM command', 'MISCONF ', 'READONLY ', 'NOREPLICAS '}) do
    if string.find(why, words, 1, true) then return true end
  end
end
local function is_denied(why)
  for _, words in ipairs({'NOPERM ', 'ACL failure in script', 'The user executing the script'}) do
    if string.find(why, words, 1, true) then return true end
  end
end

-- Does a part of a script that must not cost the rest of it. False: it failed, for a reason of its
-- own, such as a key of a wrong type. What the server refuses every script is raised, with the code
-- that it has elsewhere: pcall makes a text of it, and a text that is raised has the code ERR.
local function try(part, ...)
  local done, found = pcall(part, ...)
  if done then return true, found end
  local why = type(found) == 'table' and tostring(found.err) or tostring(found)
  if is_denied(why) then fail('NOPERM ' .. why) end
  if is_refused_to_all(why) then error(redis.acl_check_cmd and {err = why} or why, 0) end
  return false
end

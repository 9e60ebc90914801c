-- Errors: raised with a code, provoked before the first write, or contained in one part of a script.

-- Ends the script with an error that begins with a code. A server before 7.0 cannot raise a table, and
-- puts its own text before a raised text: there the "-" in front of the code marks it.
local function fail(why)
  error(redis.acl_check_cmd and {err = why} or '-' .. why, 0)
end

-- Whether the server refuses every script's writes now.
local function is_refused_to_all(why)
  for _, sign in ipairs({'OOM command', 'MISCONF ', 'READONLY ', 'NOREPLICAS '}) do
    if string.find(why, sign, 1, true) then return true end
  end
end

-- Whether the user may not call a command.
local function is_denied(why)
  for _, sign in ipairs({'NOPERM ', 'ACL failure in script', 'The user executing the script'}) do
    if string.find(why, sign, 1, true) then return true end
  end
end

-- Calls a part of a script whose failure must not end the rest. Returns false when it failed for a
-- reason of its own, such as a key of another type. An error that concerns every script is raised
-- again, with its code: pcall turns it into a text, and a raised text would get the code ERR.
local function try(part, ...)
  local done, found = pcall(part, ...)
  if done then return true, found end
  local why = type(found) == 'table' and tostring(found.err) or tostring(found)
  if is_denied(why) then fail('NOPERM ' .. why) end
  if is_refused_to_all(why) then error(redis.acl_check_cmd and {err = why} or why, 0) end
  return false
end

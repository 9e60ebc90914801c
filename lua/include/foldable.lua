-- include: states
-- Whether a hash, as a flat list, is a valid result of a fold. A hash that was damaged by hand must not
-- get into the journal as a snapshot: only the entries before it can repair it.
local function is_foldable(hash)
  local missing = {target = true, epoch = true, created_ms = true}
  for i = 1, #hash, 2 do
    local name, text = hash[i], hash[i + 1]
    local is_number = string.match(text, name == 'priority' and '^%-?%d+$' or '^%d+$')
    local is_sound = text == '' or (is_number and #text <= 15)
    if not is_sound and string.find(NUMBER_FIELDS, ' ' .. name .. '%s') then
      return false
    end
    if text ~= '' then missing[name] = nil end
  end
  return next(missing) == nil
end

-- include: states
-- Whether a hash, as a flat list, holds what a fold yields. One that was damaged by hand may not
-- become a part of the journal: the entries before it are what can mend it.
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

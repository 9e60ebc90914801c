-- Gives the last entries of a journal new ids, because entries before them have the same seqs. Each
-- entry is written again at the end, and then removed at its old id.
--
-- KEYS
--   1 journal    stream  <prefix>:{p}:journal:<run_id>
-- ARGV
--   1 last_id    text     the id of the journal's last entry, as it was read
--   2 count      integer
--   3 entries    texts: of each its id, its new id, how many texts follow, name, value, ...
-- RETURNS
--   OK last_id
--   WRONG_VERSION id        the journal has grown since
-- WRITES journal
-- COST 1 XREVRANGE, 1 XADD and 1 XDEL an entry

local journal, count = KEYS[1], tonumber(ARGV[2])
local last = redis.call('XREVRANGE', journal, '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= ARGV[1] then return {'WRONG_VERSION', last and last[1] or '-'} end

local at = 3
local old, new_id = {}, nil
for i = 1, count do
  local size = tonumber(ARGV[at + 2])
  old[i], new_id = ARGV[at], ARGV[at + 1]
  redis.call('XADD', journal, new_id, unpack(ARGV, at + 3, at + 2 + size))
  at = at + 3 + size
end
for _, id in ipairs(old) do redis.call('XDEL', journal, id) end
return {'OK', new_id}

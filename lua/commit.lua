-- Executes the commands of one store that waited for a partition, in their order, each exactly once.
--
-- A reply can be lost, and the store then sends the call again. Without a record the repeat would append
-- its events a second time. So a call has a number n, dense for each producer (store) and partition, and
-- leaves n and its answers in the producer's record; a repeat gets these answers. Two calls may be on
-- their way at once. If the first one fails and the second one does not, the first one's repeat would come
-- too late: so a call is executed only right after its predecessor, or when the producer has given up
-- all earlier calls. The record holds the answers of the last two calls, because both replies can be
-- lost with one connection.
--
-- After the number of partitions was raised, the runs of before are written to by calls of their own, with
-- OLDER in place of the numbers: these create no run, since a new one belongs where the newest number says.
--
-- Each command has its own answer. One that fails is answered with its error, before its first write, and
-- does not change the answers of the others.
--
-- KEYS
--   1 feed       stream  <prefix>:{p}:feed
--   2 base       prefix  <prefix>:{p}
-- ARGV
--   1 producer    text
--   2 n           integer
--   3 settled     integer     the producer waits for no answer to a call up to this number
--   4 known       integer     the last number that the producer knows as executed
--   5 mode        text or ''  freeing: execute it although memory is full; recorded: only look for answers
--   6 now_ms      integer     the clock of the caller
--   7 feed_max    integer
--   8 live_ttl_ms integer
--   9 max_events  integer
--   10 ttl_ms     integer
--   11 late_ms    integer
--   12 partitions text or ''  with a command that creates a run: the numbers of partitions, or OLDER
--   13 count      integer
--   14 commands   groups: name text, run_id text, size integer, arguments texts
-- RETURNS
--   OK answer*              of each command, as its file says; or ERROR and why it wrote nothing
--   DROPPED                 an older call of this producer, whose caller has gone
--   GAP                     its predecessor was not executed; nothing was written
--   REWOUND last            the server has lost calls that it had answered, those after last (0: all)
--   UNKNOWN                 mode recorded: it was not executed
--   UNCONFIRMED             these numbers of partitions are not recorded here; nothing was written
-- WRITES feed base
-- COST 1 GET, 2 SET, 1 XREVRANGE, 1 TIME; with a command that creates 1 HGET; and the commands
-- include: refusals, keys, journal, partition

local RECORD_MS = 600000

-- stores/redis/scripts.py makes COMMANDS, the function of each command, and DENIED, a check of the rights
-- that it needs: an error does not undo writes, so a user who lacks one must be refused before them.
local function execute(name, run_id, at, checked)
  if not checked[name] then
    local denied = DENIED[name](KEYS[1])
    if denied then fail('NOPERM the user may not call ' .. denied) end
    checked[name] = true
  end
  return COMMANDS[name](run_id, at)
end

local base = KEYS[2]
local n, settled, known, mode = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local record_key = producer_key(base, ARGV[1])

-- A record is "<n>\n<answers>\n\n<answers of n - 1>"; answers are lines.
local record = redis.call('GET', record_key)
local last, last_answers, earlier_answers = 0, '', ''
if record then
  last, last_answers, earlier_answers = string.match(record, '^(%d+)\n(.-)\n\n(.*)$')
  last = tonumber(last)
end
if last < known then return {'REWOUND', tostring(last)} end
if last == n or (last == n + 1 and earlier_answers ~= '') then
  -- Written again, so that a WAIT after the repeat waits for replicas, too.
  redis.call('PEXPIRE', record_key, RECORD_MS)
  local answers = {'OK'}
  for answer in string.gmatch(last == n and last_answers or earlier_answers, '[^\n]+') do
    answers[#answers + 1] = answer
  end
  return answers
end
if last > n then return {'DROPPED'} end
if mode == 'recorded' then return {'UNKNOWN'} end
if last ~= n - 1 and settled ~= n - 1 then return {'GAP'} end
CALL.is_older = ARGV[12] == 'OLDER'
if ARGV[12] ~= '' and not CALL.is_older then
  local refused = unconfirmed(base, ARGV[12])
  if refused then return refused end
end

CALL.base, CALL.feed = base, {key = KEYS[1], max = ARGV[7]}
open_feed(CALL.feed)
CALL.now_ms, CALL.live_ttl_ms, CALL.max_events = tonumber(ARGV[6]), tonumber(ARGV[8]), tonumber(ARGV[9])
CALL.ttl_ms, CALL.late_ms = tonumber(ARGV[10]), tonumber(ARGV[11])
-- The record is the first write, so that a server that takes no writes now refuses the whole call here. One
-- without free memory judges a script by its first write: PEXPIRE lets a call that frees memory pass. If the
-- call ends before its answers are recorded, the record without answers still prevents a second execution.
if mode == 'freeing' then redis.call('PEXPIRE', record_key, RECORD_MS) end
redis.call('SET', record_key, ARGV[2] .. '\n\n\n', 'PX', RECORD_MS)

local answers, checked = {'OK'}, {}
local at = 14
for i = 2, tonumber(ARGV[13]) + 1 do
  local name, run_id, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local done, answer = pcall(execute, name, run_id, at + 3, checked)
  if not done then
    -- A "-" marks the code of an error that was raised as a text; see fail in include/refusals.lua.
    local why = type(answer) == 'table' and answer.err or tostring(answer)
    answer = 'ERROR ' .. string.gsub(string.gsub(why, '^%-', ''), '[\r\n]', ' ')
  end
  answers[i] = answer
  at = at + 3 + size
end
if last ~= n - 1 then last_answers = '' end
redis.call('SET', record_key, ARGV[2] .. '\n' .. table.concat(answers, '\n', 2) .. '\n\n' .. last_answers,
  'PX', RECORD_MS)
return answers

-- include: time, keys
-- Reports to the worker of a run that the run is to be cancelled, by the worker's control stream. It is only a
-- hint, for speed: the answer of every heartbeat repeats it, so a lost message loses nothing.
local CONTROL_MESSAGES = 100
local CONTROL_MS = 3600000

local function wake_worker(base, run, run_id, now)
  local control = control_key(base, run.worker)
  redis.call('XADD', control, 'MAXLEN', '~', CONTROL_MESSAGES, '*', 'kind', 'cancel',
    'run', run_id, 'claim', run.claim)
  redis.call('PEXPIREAT', control, digits(now + CONTROL_MS))
end

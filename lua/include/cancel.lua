-- include: ending
-- The ends of runs in the fleet's hands: whoever lets go of a run whose cancel was requested ends it.

local function end_cancelled(run, run_id, keys, base, writer, p, now, ttl_ms)
  set_field(p.told, 'stopped', p.stopped)
  p.state, p.error, p.seal = 'cancelled', '', true
  end_run(run, run_id, keys, base, writer, p, now, ttl_ms)
end

-- Ends a claimed run as cancelled if that was requested; else it waits again. True: it has ended.
-- stopped: what made its execution stop; p: as for wait_again.
local function let_go(run, run_id, keys, base, writer, stopped, p, now, ttl_ms)
  if not run.cancel_requested then
    wait_again(run, run_id, base, writer, p, now)
    return false
  end
  local ending = {told = execution(run), stopped = stopped}
  end_cancelled(run, run_id, keys, base, writer, ending, now, ttl_ms)
  return true
end

local DEADLINE_TEXT = 'the run did not end before its deadline'

-- Ends a run that may not be started any more, or has waited too long.
local function end_dead(run, run_id, keys, base, writer, reason, failure, now, ttl_ms)
  local ending = {state = 'failed', error = failure, seal = true, told = {'reason', reason},
    dead = reason}
  end_run(run, run_id, keys, base, writer, ending, now, ttl_ms)
end

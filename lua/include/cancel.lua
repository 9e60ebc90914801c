-- include: events, lifecycle, ending
-- The ends of runs that workers execute. A run whose cancel was requested ends cancelled, however its
-- worker lets go of it: handed back, lost, or failed.

local function end_cancelled(run, run_id, keys, base, writer, p, now, ttl_ms)
  set_field(p.details, 'stopped', p.stopped)
  p.state, p.error, p.seal = 'cancelled', '', true
  end_run(run, run_id, keys, base, writer, p, now, ttl_ms)
end

-- Ends a claimed run cancelled if that was requested; else it waits again. Returns true when it ended.
-- stopped: what stopped the execution; p: as for wait_again.
local function cancel_or_wait_again(run, run_id, keys, base, writer, stopped, p, now, ttl_ms)
  if not run.cancel_requested then
    wait_again(run, run_id, base, writer, p, now)
    return false
  end
  local ending = {details = execution(run), stopped = stopped}
  end_cancelled(run, run_id, keys, base, writer, ending, now, ttl_ms)
  return true
end

-- Ends a run that may not be started any more, or has waited too long.
local function end_dead(run, run_id, keys, base, writer, reason, failure, now, ttl_ms)
  local ending = {state = 'failed', error = failure, seal = true, details = {'reason', reason},
    dead = reason}
  end_run(run, run_id, keys, base, writer, ending, now, ttl_ms)
end

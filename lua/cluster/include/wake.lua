-- include: keys
-- Wakes an idle worker of a target on a cluster. A read that blocks takes keys of one slot alone, so a worker
-- would need a connection for each partition. Instead, idle workers enter their names in a set, and one of
-- them gets a message.
local WAKE_TOKENS = 64

-- A message is only a hint: a worker that is frozen, or whose connection breaks, loses it. One that is gone
-- has left its name behind and gets nothing; then the next one is tried. The worker that came last is the
-- likeliest to be there.
local function wake(base, target, run_id)
  for _ = 1, WAKE_TOKENS do
    local worker = redis.call('ZPOPMAX', idle_key(base, target))[1]
    if not worker then return end
    if redis.call('SPUBLISH', hints_channel(base, worker), target) > 0 then return end
  end
end

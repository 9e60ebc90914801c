-- Keys that only a script can know: those of a run it found in a queue, a target it read from a
-- hash. All are formed from the partition's base key, "<prefix>:{p}", and stay in its slot.
local function run_key(base, run_id) return base .. ':run:' .. run_id end
local function queue_key(base, target) return base .. ':queue:' .. target end
local function wake_key(base, target) return base .. ':wake:' .. target end
local function index_key(base) return base .. ':index' end
local function state_index_key(base, state) return base .. ':index:state:' .. state end
local function target_index_key(base, target) return base .. ':index:target:' .. target end
local function expiring_key(base) return base .. ':expiring' end
local function leases_key(base) return base .. ':leases' end
local function overdue_key(base) return base .. ':overdue' end
local function owners_key(base) return base .. ':owners' end

-- The keys that live and expire together, in the order of every script's first five KEYS.
local function keys_of_run(base, run_id)
  return {
    run = run_key(base, run_id),
    journal = base .. ':journal:' .. run_id,
    producers = base .. ':producers:' .. run_id,
    input = base .. ':input:' .. run_id,
    result = base .. ':result:' .. run_id,
  }
end

local function given_run_keys()
  return {
    run = KEYS[1], journal = KEYS[2], producers = KEYS[3], input = KEYS[4], result = KEYS[5],
  }
end

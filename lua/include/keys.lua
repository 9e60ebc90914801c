-- Keys that a script forms itself, because only it knows the run (from a queue) or the target (from a
-- hash). All begin with the partition's base key, "<prefix>:{p}", and so stay in its slot.
local function run_key(base, run_id) return base .. ':run:' .. run_id end
local function queue_key(base, target) return base .. ':queue:' .. target end
local function wake_key(base, target) return base .. ':wake:' .. target end
local function index_key(base) return base .. ':index' end
local function state_index_key(base, state) return base .. ':index:state:' .. state end
local function target_index_key(base, target) return base .. ':index:target:' .. target end
local function tenant_index_key(base, tenant) return base .. ':index:tenant:' .. tenant end
local function expiring_key(base) return base .. ':expiring' end
local function leases_key(base) return base .. ':leases' end
local function overdue_key(base) return base .. ':overdue' end
local function owners_key(base) return base .. ':owners' end
local function dead_key(base, target) return base .. ':dead:' .. target end
local function dead_targets_key(base) return base .. ':dead' end
local function paused_key(base) return base .. ':paused' end
local function sweeper_key(base) return base .. ':sweeper' end
local function meta_key(base) return base .. ':meta' end
local function control_key(base, worker) return base .. ':control:' .. worker end

-- All keys of a run; they expire together.
local function keys_of_run(base, run_id)
  return {
    run = run_key(base, run_id),
    journal = base .. ':journal:' .. run_id,
    producers = base .. ':producers:' .. run_id,
    input = base .. ':input:' .. run_id,
    result = base .. ':result:' .. run_id,
    checkpoint = base .. ':checkpoint:' .. run_id,
  }
end

local function passed_run_keys()
  return {
    run = KEYS[1], journal = KEYS[2], producers = KEYS[3], input = KEYS[4], result = KEYS[5],
    -- The first braces are the partition's: a prefix cannot have any.
    checkpoint = (string.gsub(KEYS[1], '({%d+}):run:', '%1:checkpoint:', 1)),
  }
end

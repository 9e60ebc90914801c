-- Keys that a script forms itself, because only it knows the run (from a queue) or the target (from a
-- hash). All begin with the partition's base key, "<prefix>:{p}", and so stay in its slot.
local function run_key(base, run_id) return base .. ':run:' .. run_id end
local function input_key(base, run_id) return base .. ':input:' .. run_id end
local function result_key(base, run_id) return base .. ':result:' .. run_id end
local function checkpoint_key(base, run_id) return base .. ':checkpoint:' .. run_id end
local function producers_key(base, run_id) return base .. ':producers:' .. run_id end
local function queue_key(base, target) return base .. ':queue:' .. target end
local function journal_key(base, run_id) return base .. ':journal:' .. run_id end
local function restoring_key(base, run_id, digest)
  return base .. ':restoring:' .. run_id .. ':' .. digest
end
local function producer_key(base, producer) return base .. ':producer:' .. producer end
local function wake_key(base, target) return base .. ':wake:' .. target end
local function idle_key(base, target) return base .. ':idle:' .. target end
local function hints_channel(base, worker) return base .. ':hints:' .. worker end
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

-- All keys of a run; they expire together. Programs of an earlier version have producers.
local function keys_of_run(base, run_id)
  return {
    run = run_key(base, run_id),
    journal = journal_key(base, run_id),
    producers = producers_key(base, run_id),
    input = input_key(base, run_id),
    result = result_key(base, run_id),
    checkpoint = checkpoint_key(base, run_id),
  }
end

-- The keys of keys_of_run that the run has, as read_whole_run found them.
local function keys_it_has(base, run_id, run, has_producers)
  local has = run.payloads
  return {
    run = run.key,
    journal = journal_key(base, run_id),
    producers = has_producers and producers_key(base, run_id) or nil,
    input = has.input and input_key(base, run_id) or nil,
    result = has.result and result_key(base, run_id) or nil,
    checkpoint = has.checkpoint and checkpoint_key(base, run_id) or nil,
  }
end

-- The keys that events are written to: the hot commands would pay for the others.
local function keys_of_events(base, run_id)
  return {run = run_key(base, run_id), journal = journal_key(base, run_id)}
end

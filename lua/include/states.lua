-- Generated from murmur_streams/core/model/states.py by: python -m tests.lua.generated
local TERMINAL = {cancelled = true, completed = true, failed = true}
local function all_states() return {'pending', 'running', 'completed', 'failed', 'cancelled'} end
local NUMBER_FIELDS = [[
 attempt cancel_delivered cancel_event cancel_requested checkpoint_size closing
 created_ms deadline_ms deadline_span_ms due_ms ended_ms excused failures
 input_size last_ms priority progress_completed progress_failed progress_ms
 progress_running progress_total result_size seal silent snapshot started_ms
 version ]]
local PROGRESS_INTERVAL_MS = 1000
local LIVE_GRACE_MS = 86400000

-- Generated from murmur_streams/core/states.py by: python -m murmur_streams.stores.redis.generated
local TERMINAL = {cancelled = true, completed = true, failed = true}
local function all_states() return {'pending', 'running', 'completed', 'failed', 'cancelled'} end
local PROGRESS_INTERVAL_MS = 1000
local LIVE_GRACE_MS = 86400000

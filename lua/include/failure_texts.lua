-- Generated from murmur_streams/core/rules/executions.py by: python -m tests.lua.generated
local function deadline_text() return 'the run did not end before its deadline' end
local function neglected_text() return 'it got no write for {seconds} seconds (live_ttl_seconds)' end
local function given_up_texts()
  return {
    one = 'given up after 1 attempt',
    some = 'given up after {attempts} attempts',
    one_lost = 'given up after 1 attempt: its lease ran out',
    all_lost = 'given up after {attempts} attempts: the lease of each ran out',
    some_lost = 'given up after {attempts} attempts: the lease of {lost} ran out',
  }
end

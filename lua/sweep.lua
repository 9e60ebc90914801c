-- Does a page of housekeeping: removes the rows of expired runs, fails live runs that got no write for
-- too long and runs whose owner is gone, and trims the feed by time.
--
-- KEYS
--   1 base       prefix  <prefix>:{p}
--   2 feed       stream  <prefix>:{p}:feed
-- ARGV
--   1 limit       integer
--   2 feed_max    integer
--   3 ttl_ms      integer
-- RETURNS
--   OK count more (name what)*  count: runs removed or ended; more: 1 to call again; damaged or wrong_type
-- WRITES base feed
-- COST 3 ZRANGEBYSCORE, 1 XREVRANGE, 1 XTRIM; a run: 8 ZREM (with a tenant 9), or as finish
-- include: time, owners

local base, feed = KEYS[1], {key = KEYS[2], max = ARGV[2]}
local limit, ttl_ms, now = tonumber(ARGV[1]), tonumber(ARGV[3]), server_ms()
local reports = {}
local function report(name, what)
  reports[#reports + 1], reports[#reports + 2] = name, what
end
local count, most = do_housekeeping(base, feed, ttl_ms, now, limit, report)
return {'OK', digits(count), most == limit and '1' or '0', unpack(reports)}

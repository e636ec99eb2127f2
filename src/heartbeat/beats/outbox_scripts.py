"""The scripts of the outbox: who delivers to a channel, how far it has got, and what is cut from a stream of flips.

Each touches one key: a channel's hash and a connector's stream need not live on one node of a Redis Cluster.
"""

from __future__ import annotations

from typing import Final

LEASE: Final = """
-- KEYS: channel. ARGV: owner, lease in ms. Returns the fence (0 if somebody else holds the lease), the time, and every field.
-- A lease that ends later than any can was taken before the clock was set back: it counts as over.
local held, now = redis.call('HMGET', KEYS[1], 'owner', 'until_ms'), redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local left, fence = tonumber(held[2] or 0) - now, 0
if held[1] == ARGV[1] or left <= 0 or left > tonumber(ARGV[2]) then
  if held[1] ~= ARGV[1] then redis.call('HINCRBY', KEYS[1], 'fence', 1) end
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until_ms', string.format('%.0f', now + ARGV[2]))
  fence = tonumber(redis.call('HGET', KEYS[1], 'fence'))
end
return {fence, string.format('%.0f', now), redis.call('HGETALL', KEYS[1])}
"""

RELEASE: Final = """
-- KEYS: channel. ARGV: owner. The fence stays: the next owner's is higher.
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('HDEL', KEYS[1], 'owner', 'until_ms') end
return 1
"""

BEGIN: Final = """
-- KEYS: channel. ARGV: its birth, then (field, id). Only the first one counts.
if redis.call('HSETNX', KEYS[1], 'born', ARGV[1]) == 0 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""

GO_BACK: Final = """
-- KEYS: channel. ARGV: its birth as it is now.
-- Everything was lost, and whoever began the channel anew knew nothing of it, and began at the end: what came before would never be
-- told. Where it had got to before means nothing in streams that were made anew.
if redis.call('HGET', KEYS[1], 'born') ~= ARGV[1] then return 0 end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(name, 1, 3) == 'at:' then redis.call('HSET', KEYS[1], name, '0-0') end
end
return 1
"""

MOVE: Final = """
-- KEYS: channel. ARGV: owner, fence, then (field, what it is now ('' if it is not there), what it becomes ('' to take it away)).
-- Returns 1 if the lease is still ours, and nobody has put a field elsewhere; otherwise nothing is written.
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = 3, #ARGV, 3 do
  if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
end
return 1
"""

LOSE: Final = """
-- KEYS: channel. ARGV: cursor's field, field that counts what is lost, field of the last cut, then the ids that are about to go.
-- The same cut counts once, whoever makes it, and however often. Returns how many of them the channel has not got.
local function after(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am > bm or (am == bm and as > bs)
end
local cut = ARGV[#ARGV]
if redis.call('HEXISTS', KEYS[1], 'born') == 0 or redis.call('HGET', KEYS[1], ARGV[3]) == cut then return 0 end
local at, lost = redis.call('HGET', KEYS[1], ARGV[1]) or '0-0', 0
for i = 4, #ARGV do
  if after(ARGV[i], at) then lost = lost + 1 end
end
redis.call('HSET', KEYS[1], ARGV[3], cut)
if lost > 0 then redis.call('HINCRBY', KEYS[1], ARGV[2], lost) end
return lost
"""

TRIM: Final = """
-- KEYS: flips. ARGV: id of the slowest channel's last entry ('' if there is no channel), how many of the newest stay.
-- In whole nodes (~), so it may leave a few more. Returns how many there are now.
local more = redis.call('XLEN', KEYS[1]) - ARGV[2]
if more > 0 and ARGV[1] == '' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
elseif more > 0 then
  redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1], 'LIMIT', more)
end
return redis.call('XLEN', KEYS[1])
"""

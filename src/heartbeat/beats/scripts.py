"""The scripts of the keyspace: what must look and write in one step. Each is short, touches one connector's index and no public key.

They are sent whole each time (EVAL): a server that was flushed, restarted or failed over has no script cache to miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from heartbeat.beats.connection import Argument

_RUN_ID: Final = """
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
"""

CLAIM: Final = (
    _RUN_ID
    + """
-- KEYS: proof, then the rest of the index. ARGV: config, everybody's ttl, token, partitions.
-- An index of other topics or another template is dropped: it would be a mass of sources that nobody beats for any more.
-- What an operator wants of the connector stays so. Who is down is let go of by a goodbye of now: by that a monitor ends the incident.
local config, dropped, time = redis.call('HGET', KEYS[1], 'config'), 0, redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if config and config ~= ARGV[1] then
  local target, down = redis.call('HGET', KEYS[1], 'target'), redis.call('ZRANGE', KEYS[3], 0, -1)
  for i, key in ipairs(KEYS) do if i ~= 3 then redis.call('UNLINK', key) end end
  for _, source in ipairs(down) do redis.call('ZADD', KEYS[4], now, source) end
  if target then redis.call('HSET', KEYS[1], 'target', target) end
  dropped = 1
end
local ttl = redis.call('HGET', KEYS[1], 'ttl') or ARGV[2]
redis.call('HSET', KEYS[1], 'config', ARGV[1], 'ttl', ARGV[2], 'canaries', '1')
redis.call('HSETNX', KEYS[1], 'made_ms', now)
local found = {}
for i = 4, #ARGV do
  local p = ARGV[i]
  found[i - 3] = redis.call('HMGET', KEYS[1], p .. '/offset', p .. '/since', p .. '/until', p .. '/epoch', p .. '/log', p .. '/canary')
  redis.call('HSET', KEYS[1], p .. '/token', ARGV[3])
end
return {dropped, ttl, time, run_id, redis.call('HGET', KEYS[1], 'partitions'), found}
"""
)

BEGIN: Final = """
-- KEYS: proof. ARGV: token, then (partition, offset, '1' if what was proven stays proven).
for i = 2, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i] .. '/token') ~= ARGV[1] then return 0 end
end
for i = 2, #ARGV, 3 do
  local p = ARGV[i]
  redis.call('HSET', KEYS[1], p .. '/offset', ARGV[i + 1])
  if ARGV[i + 2] ~= '1' then
    redis.call('HDEL', KEYS[1], p .. '/since', p .. '/until', p .. '/epoch', p .. '/log', p .. '/canary')
  end
end
return 1
"""

ADVANCE: Final = (
    _RUN_ID
    + """
-- KEYS: proof, deadlines, down, gone. ARGV: run id of the server that took the data, partition set ('' if it is not new), when it was
-- asked for, then (partition, token, expected offset, new offset, since, until, epoch, log, canary). since of '': nothing new is proven.
-- An offset that is new already is our own: the reply to it was lost. A topic that this task does not know stays in the set, because
-- another one of the same pattern may know it already; one with no partitions is gone. A set from the future is replaced by any.
local refused = {}
for i = 4, #ARGV, 9 do
  local p = ARGV[i]
  local now = redis.call('HMGET', KEYS[1], p .. '/token', p .. '/offset')
  local ours = now[1] == ARGV[i + 1] and (now[2] == ARGV[i + 2] or now[2] == ARGV[i + 3])
  if not ours or run_id ~= ARGV[1] then refused[#refused + 1] = p end
end
if #refused == 0 then
  for i = 4, #ARGV, 9 do
    local p = ARGV[i]
    redis.call('HSET', KEYS[1], p .. '/offset', ARGV[i + 3])
    if ARGV[i + 4] ~= '' then
      redis.call('HSET', KEYS[1], p .. '/since', ARGV[i + 4], p .. '/until', ARGV[i + 5], p .. '/epoch', ARGV[i + 6])
    end
    if ARGV[i + 7] ~= '' then redis.call('HSET', KEYS[1], p .. '/log', ARGV[i + 7]) end
    local canary = tonumber(ARGV[i + 8])
    if canary and canary > tonumber(redis.call('HGET', KEYS[1], p .. '/canary') or 0) then
      redis.call('HSET', KEYS[1], p .. '/canary', ARGV[i + 8])
    end
  end
  local asked_at = tonumber(redis.call('HGET', KEYS[1], 'partitions_at') or 0)
  if ARGV[2] ~= '' and (asked_at < tonumber(ARGV[3]) or asked_at > 1000 * redis.call('TIME')[1] + 3000) then
    local set = cjson.decode(redis.call('HGET', KEYS[1], 'partitions') or '{}')
    for topic, count in pairs(cjson.decode(ARGV[2])) do set[topic] = count > 0 and count or nil end
    redis.call('HSET', KEYS[1], 'partitions', cjson.encode(set), 'partitions_at', ARGV[3])
  end
end
local known = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3])
return {refused, redis.call('TIME'), known, redis.call('ZCARD', KEYS[4])}
"""
)

SAY: Final = """
-- KEYS: proof. ARGV: field, text. Only where something is claimed: of a connector that was deleted meanwhile nothing is to be left.
if redis.call('HEXISTS', KEYS[1], 'config') == 0 then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

RETIME: Final = """
-- KEYS: deadlines, info. ARGV: (source, beat, ttl, info if there is none yet).
-- Another ttl: beats are compared, not deadlines. Returns per source the deadline that stands, and the ttl it was made with.
local result = {}
for i = 1, #ARGV, 4 do
  local source, beat, ttl = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local deadline = tonumber(redis.call('ZSCORE', KEYS[1], source) or 0)
  local info = redis.call('HGET', KEYS[2], source) or ARGV[i + 3]
  local first, old, rest = string.match(info, '^(%d+) (%d+)(.*)$')
  old = tonumber(old)
  if deadline - old <= beat then
    deadline, old = beat + ttl, ttl
    redis.call('ZADD', KEYS[1], string.format('%.0f', deadline), source)
    redis.call('HSET', KEYS[2], source, first .. ' ' .. string.format('%.0f', ttl) .. rest)
  end
  result[#result + 1] = string.format('%.0f', deadline)
  result[#result + 1] = string.format('%.0f', old)
end
return result
"""

SIGNAL: Final = """
-- KEYS: status, runs, fails. ARGV: source, time, 'topic/partition', offset, status, run field ('' if none), most open runs, all as JSON.
-- The newest wins, so that a replay says nothing twice. Returns 1 if it was newer, 2 if its run found no room.
local old, time, offset = redis.call('HGET', KEYS[1], ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local room = true
if ARGV[6] ~= '' then -- each run has its own order: another run's newer signal says nothing of this one
  local started = tonumber(redis.call('HGET', KEYS[2], ARGV[6]) or -1)
  if ARGV[5] ~= 'start' then
    if started <= time then redis.call('HDEL', KEYS[2], ARGV[6]) end
  elseif started < 0 and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[7]) then
    room = false
  elseif started < time then
    redis.call('HSET', KEYS[2], ARGV[6], ARGV[2])
  end
end
local said = 'ok'
if old then
  local o = cjson.decode(old)
  if o.at_ms > time then return room and 0 or 2 end
  if o.at_ms == time and (o.partition > ARGV[3] or (o.partition == ARGV[3] and o.offset >= offset)) then return room and 0 or 2 end
  said = o.status
end
-- ok is what everybody is who says nothing: it is worth keeping only where it ends something else.
if ARGV[5] ~= 'ok' or said ~= 'ok' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[8]) end
if ARGV[5] == 'fail' then
  redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
elseif said == 'fail' then
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return room and 1 or 2
"""

BYE: Final = """
-- KEYS: gone, deadlines, info, down, status. ARGV: source, time, ttl if none is kept, oldest goodbye worth keeping.
-- Returns 1 unless it has beaten since. Goodbyes too old to be redelivered go, and all that is kept of those sources with them; not of one
-- that is down: a monitor ends its incident by its goodbye, and weighs that by the ttl that is kept. Where none runs, these are the oldest
-- some day: so it is not always there that is looked.
local many = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[4])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4], 'LIMIT', tonumber(ARGV[2]) % math.max(1, many - 99), 100)
for _, source in ipairs(old) do
  if not redis.call('ZSCORE', KEYS[4], source) then
    redis.call('ZREM', KEYS[1], source)
    if not redis.call('ZSCORE', KEYS[2], source) then
      redis.call('HDEL', KEYS[3], source)
      redis.call('HDEL', KEYS[5], source)
    end
  end
end
local deadline, info = redis.call('ZSCORE', KEYS[2], ARGV[1]), redis.call('HGET', KEYS[3], ARGV[1])
local ttl = tonumber(string.match(info or '', '^%d+ (%d+)') or ARGV[3])
if deadline and tonumber(deadline) - ttl > tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

MAKE_ROOM: Final = """
-- KEYS: deadlines, down, info, status, gone. ARGV: how many, now. The longest dead go first. Returns how many went. Who is down is let go
-- of by a goodbye of now: by that a monitor ends the incident, and takes it out.
local dead = {}
for k = 1, 2 do
  local found = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', '(' .. ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  for i = 1, #found, 2 do
    local going = k == 2 and redis.call('ZSCORE', KEYS[5], found[i])
    if not going then dead[#dead + 1] = {found[i], tonumber(found[i + 1]), k} end
  end
end
table.sort(dead, function(a, b) return a[2] < b[2] end)
local went = math.min(#dead, tonumber(ARGV[1]))
for i = 1, went do
  local source = dead[i][1]
  if dead[i][3] == 2 then redis.call('ZADD', KEYS[5], ARGV[2], source) else redis.call('ZREM', KEYS[1], source) end
  redis.call('HDEL', KEYS[3], source)
  redis.call('HDEL', KEYS[4], source)
end
return went
"""


def command(text: str, keys: Sequence[str], *words: Argument) -> tuple[Argument, ...]:
    """Return the command that runs a script."""
    return ("EVAL", text, len(keys), *keys, *words)

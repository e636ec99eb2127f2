"""The scripts that judge: each looks at everything its verdict rests on, and writes, in one step. Of several monitors one wins.

They are sent whole each time (EVAL), as all scripts of the keyspace.
"""

from __future__ import annotations

from typing import Final

_SIGHT: Final = """
-- KEYS[1] is the proof. ARGV: our clock, slack, settle, '1' if canaries count. Leaves what is proven: everything committed by ``least``
-- is applied (-1: nothing is), with our looking of each partition whole over its ``window``. ``flip`` stores a change with that.
local time = redis.call('TIME')
local redis_now, own = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
local slack, settle, canaries = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local now, words, proof = math.min(redis_now, own), redis.call('HGETALL', KEYS[1]), {}
for i = 1, #words, 2 do proof[words[i]] = words[i + 1] end
local least, windows = tonumber(proof['partitions_at'] or -1), {} -- of partitions that came later nothing is known
if least > redis_now then least = -1 end
for topic, count in pairs(cjson.decode(proof['partitions'] or '{}')) do
  for n = 0, count - 1 do
    local p = topic .. '/' .. n
    local since, til = tonumber(proof[p .. '/since'] or -1), tonumber(proof[p .. '/until'] or -1)
    if since < 0 or til > redis_now then til = -1 end -- a time to come can only be proven by a wrong clock
    windows[#windows + 1] = til - since
    if canaries then til = math.min(til, tonumber(proof[p .. '/canary'] or -1)) end
    least = math.min(least, til)
  end
end
if #windows == 0 or math.abs(redis_now - own) > 2000 then least = -1 end
local function flip(key, text)
  local known = least >= 0 and string.format('%.0f', least) or ''
  redis.call('XADD', key, '*', 'flip', text, 'proven_until_ms', known, 'detected_ms', string.format('%.0f', now))
end
"""

_INDEX: Final = """
local default_ttl = tonumber(proof['ttl'] or 0)
local function score(key, source) return tonumber(redis.call('ZSCORE', key, source) or nil) end
local function ttl_of(source) return tonumber(string.match(redis.call('HGET', KEYS[5], source) or '', '^%d+ (%d+)')) end
local function failed_at(source)
  local said = redis.call('HGET', KEYS[6], source)
  said = said and cjson.decode(said)
  return said and said.status == 'fail' and said.at_ms
end
"""

_HEARD: Final = """
-- A goodbye was said only if something else is kept of its source. KEYS[5] is info, KEYS[6] status.
local function heard(source) return redis.call('HEXISTS', KEYS[5], source) == 1 or redis.call('HEXISTS', KEYS[6], source) == 1 end
"""

JUDGE: Final = (
    _SIGHT
    + _INDEX
    + """
-- KEYS: proof, deadlines, down, gone, info, status, fails, expected, flips. ARGV from 5 on: (kind, source, what it was seen with, deadline
-- judged, grace, flip). Returns what became of each. A fail is judged on its own time, which a half is added to where it is kept.
-- Who has looked since the last beat has looked for a ttl by now: that needs no asking of its own.
local function proven(deadline, ttl)
  if deadline + slack > least then return false end
  local needed = ttl and math.min(ttl, settle) or settle
  for _, window in ipairs(windows) do
    if window < needed then return false end
  end
  return true
end

local function outcome_of(kind, source, seen, judged, grace)
  local deadline, gone, ttl = score(KEYS[2], source), score(KEYS[4], source), ttl_of(source)
  if score(KEYS[3], source) then
    redis.call('ZREM', KEYS[7], source)
    return 'known'
  elseif kind == 'silence' then
    if deadline ~= judged then return 'moved' end
    if score(KEYS[7], source) then return 'moved' end -- that is judged first, or the fail and its silence would be two incidents
    if gone and gone >= judged - (ttl or default_ttl) then
      redis.call('ZREM', KEYS[2], source)
      return 'gone'
    end
    return judged + grace <= now and proven(judged, ttl) and 'down' or 'unproven'
  elseif kind == 'fail' then
    if score(KEYS[7], source) ~= seen then return 'moved' end
    local newer = deadline and deadline - (ttl or default_ttl) > seen
    local over = newer and deadline <= now
    -- A beat that followed takes nothing back while a fail is fresh, or who beats all the while is never heard. An old one is a replay; one
    -- whose beat has been followed by nothing may be: its incident, which has ended, would take that silence for a part of it.
    if failed_at(source) ~= seen or (newer and seen + grace < now) or (over and proven(deadline, ttl)) or (gone and gone >= seen) then
      redis.call('ZREM', KEYS[7], source)
      return 'moved'
    end
    return least >= seen and not over and 'down' or 'unproven'
  elseif kind == 'never_seen' then
    if deadline or gone or score(KEYS[8], source) ~= seen or judged ~= seen + default_ttl then return 'moved' end
    return judged + grace <= now and proven(judged, default_ttl) and 'down' or 'unproven'
  end
  error('no such kind of case')
end

local outcomes = {}
for i = 5, #ARGV, 6 do
  local source, judged = ARGV[i + 1], tonumber(ARGV[i + 3])
  local outcome = outcome_of(ARGV[i], source, tonumber(ARGV[i + 2]), judged, tonumber(ARGV[i + 4]))
  if outcome == 'down' then
    local beat = (score(KEYS[2], source) or judged) - (ttl_of(source) or default_ttl)
    if beat <= judged then redis.call('ZREM', KEYS[2], source) end -- one after a fail stays: it ends the incident
    redis.call('ZREM', KEYS[7], source)
    redis.call('ZADD', KEYS[3], string.format('%.0f', judged) .. (ARGV[i] == 'fail' and '.5' or ''), source)
    flip(KEYS[9], ARGV[i + 5])
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
"""
)

RETURNED: Final = """
-- KEYS: down, deadlines, gone. ARGV: first and last rank. Returns who of those that are down has been heard of again:
-- (source, what it was judged on, deadline now, time of its goodbye), '' where there is none.
local found, down = {}, redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')
for i = 1, #down, 2 do
  local deadline, gone = redis.call('ZSCORE', KEYS[2], down[i]), redis.call('ZSCORE', KEYS[3], down[i])
  if deadline or gone then
    for _, word in ipairs({down[i], down[i + 1], deadline or '', gone or ''}) do found[#found + 1] = word end
  end
end
return found
"""

RECOVER: Final = (
    _SIGHT
    + _INDEX
    + _HEARD
    + """
-- KEYS as for a verdict. ARGV from 5 on: (source, what it was judged on, deadline seen or -1, flip if it recovered, flip if it said
-- goodbye). What is not newer than its last word before the verdict was delivered again, a deadline that has passed is the same incident's
-- still; both are taken out.
local outcomes = {}
for i = 5, #ARGV, 5 do
  local source, judged, seen = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local deadline, gone, outcome = score(KEYS[2], source), score(KEYS[4], source), 'moved'
  if score(KEYS[3], source) == judged then
    local ttl, failed = ttl_of(source) or default_ttl, failed_at(source)
    local last = judged % 1 > 0 and math.floor(judged) or judged - ttl
    local beat = deadline and deadline - ttl
    local left = gone and gone >= (beat or last)
    -- Whoever left, came back, and is silent or has failed since, is in another incident, which is still to be judged.
    local back = gone and gone >= last and not left and (deadline <= redis_now or (failed or 0) >= beat)
    if left or back then
      if left then
        redis.call('ZREM', KEYS[2], source)
      elseif (failed or 0) > gone then
        redis.call('ZADD', KEYS[7], string.format('%.0f', failed), source)
      end
      redis.call('ZREM', KEYS[3], source)
      if not heard(source) then redis.call('ZREM', KEYS[4], source) end -- nobody said it: it was let go of, and may come back
      flip(KEYS[9], ARGV[i + 4])
      outcome = 'bye'
    elseif gone and not deadline then
      redis.call('ZREM', KEYS[4], source)
      outcome = 'still'
    elseif deadline and (beat <= last or deadline <= redis_now or (failed and failed >= beat)) then
      redis.call('ZREM', KEYS[2], source)
      outcome = 'still'
    elseif deadline and seen - ttl > last and deadline >= seen then
      redis.call('ZREM', KEYS[3], source)
      flip(KEYS[9], ARGV[i + 3])
      outcome = 'recovered'
    end
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
"""
)

EXPECT: Final = (
    _HEARD
    + """
-- KEYS: expected, deadlines, down, gone, info, status. ARGV: now, what is kept of one that said goodbye, then all who are declared.
-- Returns since when each of these is expected.
local declared, since = {}, {}
for i = 3, #ARGV do declared[ARGV[i]] = true end
for _, source in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if not declared[source] then
    redis.call('ZREM', KEYS[1], source)
    -- It is down for not having come, and nobody waits for it any more: as good as a goodbye.
    if redis.call('ZSCORE', KEYS[3], source) and not heard(source) then redis.call('ZADD', KEYS[4], ARGV[1], source) end
  end
end
for i = 3, #ARGV do
  local source = ARGV[i]
  local known = redis.call('ZSCORE', KEYS[1], source)
  local at = known or ARGV[1]
  if redis.call('ZSCORE', KEYS[4], source) and heard(source) then
    at = ARGV[2] -- it is not missed before it beats again, also when its goodbye has been swept out
  elseif known == ARGV[2] and (redis.call('ZSCORE', KEYS[2], source) or redis.call('ZSCORE', KEYS[3], source)) then
    at = ARGV[1]
  end
  if at ~= known then redis.call('ZADD', KEYS[1], at, source) end
  since[#since + 1] = at
end
return since
"""
)

BLIND: Final = (
    _SIGHT
    + """
-- KEYS: proof, blind, flips. ARGV from 5 on: how old what is proven may be, what to keep, flip, '1' to believe it without looking.
if redis.call('EXISTS', KEYS[2]) == 1 or (ARGV[8] ~= '1' and least >= now - tonumber(ARGV[5])) then return 0 end
redis.call('SET', KEYS[2], ARGV[6])
flip(KEYS[3], ARGV[7])
return 1
"""
)

SIGHTED: Final = (
    _SIGHT
    + """
-- KEYS: proof, blind, flips. ARGV from 5 on: how old what is proven may be, what was kept, flip.
if redis.call('GET', KEYS[2]) ~= ARGV[6] or least < now - tonumber(ARGV[5]) then return 0 end
redis.call('DEL', KEYS[2])
flip(KEYS[3], ARGV[7])
return 1
"""
)

LET_GO: Final = (
    """
local proof = {ttl = redis.call('HGET', KEYS[1], 'ttl')}
"""
    + _INDEX
    + """
-- KEYS as for a verdict. ARGV: (source, deadline or fail, when that ended). What was heard since was taken for a part of the incident.
-- It is judged anew: its fail, or its silence, from the earliest deadline that a word since the end can have made.
for i = 1, #ARGV, 3 do
  local source, ended, judged = ARGV[i], tonumber(ARGV[i + 2]), score(KEYS[3], ARGV[i])
  if judged and math.floor(judged) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[3], source)
    local failed, due = failed_at(source) or 0, ended + (ttl_of(source) or default_ttl)
    if failed > ended then redis.call('ZADD', KEYS[7], string.format('%.0f', failed), source) end
    if (score(KEYS[4], source) or -1) < ended then redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', due), source) end
  end
end
"""
)

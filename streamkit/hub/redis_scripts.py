"""What happens inside Redis: the log, the leases and the presence of `redis://`, as Lua scripts.

Law of this file
- A script is the transaction: Redis runs it whole, with nothing of other clients in between, and writes all of it or
  none to its append-only file. The first write of each is one that Redis refuses when it is out of memory or cannot
  persist, so that a refused script has changed nothing.
- The log is one Redis Stream. The id of an entry is `number-milliseconds`: the number rises by one, from a base that is
  the microseconds since 1970 at which the log was made; the second part is the time of the append. So the order never
  depends on a clock, what was trimmed is known from the number of the oldest entry alone (XINFO tells it only since
  Redis 7), and the numbers of a log that was made anew are larger than all of the one that was lost.
- A position is checked by both parts, because Redis may come back with less than it had (a failover to a replica that
  lagged, a power cut): then a number is given out twice, but not with the same time.
- Every script gets as ARGV[1] "0" at the first attempt of a call; at those that follow a lost answer, the milliseconds
  within which all attempts of a call are made. So each can be repeated: by what it does, or by a token that all
  attempts of a call have in common.
- Numbers stay below 2^53, where Lua's are exact; they are formatted by '%.0f', since tostring() keeps 14 digits only.

Commands of Redis 5 (streams) are enough; nothing here needs 6.2 or 7.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from streamkit.hub.broker import RETAIN


class Script(NamedTuple):
    """A script, the SHA-1 by which Redis knows it, and the names of its keys (see `key_names`)."""

    text: str
    sha: str
    keys: tuple[str, ...]


def _script(keys: str, text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), tuple(keys.split()))


def key_names(stream: str) -> dict[str, str]:
    """Every key of a log. The braces put all of them into the slot of the stream itself (Redis Cluster)."""
    parts = (
        "log",
        "ids",
        "leases",
        "lease-ends",
        "stops",
        "clock",
        "processes",
        "present",
        "released",
        "retention",
    )
    return {"stream": stream, **{part: f"{{{stream}}}:{part}" for part in parts}}


# The state of the log: one string "epoch base last ms", where `last` and `ms` are those of the newest entry. A string,
# because two commands less are a fifth of what an append costs Redis.
_LOG: Final = """
local function log_in(text)
  if not text then return nil end
  local epoch, base, last, ms = string.match(text, '^(%w+) (%d+) (%d+) (%d+)$')
  return epoch, tonumber(base), tonumber(last), ms
end
local function log_of(key) return log_in(redis.call('GET', key)) end
"""

# ARGV: attempt, what is to be retained from now on ("entries milliseconds", of which 0 is any age; "": as was said
# before), number of an entry that is older than the call, token, of which the first 8 characters are the epoch of a new
# log; then topic, data, event, id of each entry: "" for no event, else "=" and the event; "" for no own id. Returns
# "epoch base number ms" of the first entry, or {"taken", id}, {"reserved", id}, {"foreign"}, {"unknown"}.
APPEND: Final = _script(
    "stream log ids retention",
    _LOG
    + f"local BY_DEFAULT = '{RETAIN} 0'"
    + """
local stream, ids, attempt = KEYS[1], KEYS[3], ARGV[1]
local time = redis.call('TIME')
local ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local known = redis.call('MGET', KEYS[2], KEYS[4])
local epoch, base, last = log_in(known[1])

if not epoch then
  local top = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if top and not (top[2][1] == 'topic' and top[2][3] == 'data') then return {'foreign'} end
  if redis.call('EXISTS', stream, ids) > 0 then redis.call('DEL', stream, ids) end  -- of a log whose epoch was evicted
  epoch, base = string.sub(ARGV[4], 1, 8), time[1] * 1000000 + time[2]
  last = base
elseif attempt ~= '0' then
  -- The first attempt may have been done although its answer was lost: then its token is in an entry since then.
  local since, upper, looked, number, at = tonumber(string.match(ARGV[3], '^%d+')), '+', 0, nil, nil
  local older = redis.call('XRANGE', stream, string.format('%.0f', since), string.format('%.0f', since))[1]
  -- A log that came back without its end gives numbers again, so that what is older is not known by its number.
  if since < base or since > last or (older and older[1] ~= ARGV[3]) then since = base end
  repeat
    local page = redis.call('XREVRANGE', stream, upper, '-', 'COUNT', 20)
    for _, entry in ipairs(page) do
      number, at = string.match(entry[1], '^(%d+)-(%d+)$')
      if tonumber(number) <= since then page = {} break end
      if entry[2][#entry[2]] == ARGV[4] then return string.format('%s %.0f %s %s', epoch, base, number, at) end
      upper = string.format('%.0f', tonumber(number) - 1)
    end
    looked = looked + 20
  until #page < 20 or looked >= 100000
  -- All that was looked at is younger than the call, and there was more, which may have had the token.
  if number and tonumber(number) > since + 1 and tonumber(at) >= ms - attempt then return {'unknown'} end
end

local chosen, floor = {}, nil
for index = 8, #ARGV, 4 do
  local id = ARGV[index]
  if id ~= '' then
    if not floor then
      local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
      floor = first and tonumber(string.match(first[1], '^%d+')) or last + 1
    end
    local number = tonumber(redis.call('ZSCORE', ids, id) or nil)
    -- The id of an entry that was trimmed is free again.
    if chosen[id] or (number and number >= floor) then return {'taken', id} end
    if string.sub(id, 1, #epoch + 1) == epoch .. '-' then return {'reserved', id} end
    chosen[id] = true
  end
end

local number = last
for index = 5, #ARGV, 4 do
  number = number + 1
  local fields, event, id = {'topic', ARGV[index], 'data', ARGV[index + 1]}, ARGV[index + 2], ARGV[index + 3]
  if event ~= '' then fields[5], fields[6] = 'event', string.sub(event, 2) end
  if id ~= '' then fields[#fields + 1] = 'id'; fields[#fields + 1] = id end
  -- last, where the search above looks for it
  if index == 5 then fields[#fields + 1] = 'token'; fields[#fields + 1] = ARGV[4] end
  redis.call('XADD', stream, string.format('%.0f-%s', number, ms), unpack(fields))
  if id ~= '' then redis.call('ZADD', ids, string.format('%.0f', number), id) end
end
local reply = string.format('%s %.0f %.0f %s', epoch, base, number, ms)
redis.call('SET', KEYS[2], reply)
if number ~= last + 1 then reply = string.format('%s %.0f %.0f %s', epoch, base, last + 1, ms) end

if floor then redis.call('ZREMRANGEBYSCORE', ids, '-inf', string.format('(%.0f', floor)) end
local retained = ARGV[2]
if retained == '' then retained = known[2] or BY_DEFAULT
elseif retained ~= known[2] then redis.call('SET', KEYS[4], retained) end
local retain, retain_ms = string.match(retained, '^(%d+) (%d+)$')
-- Redis frees nodes of 100 entries; asking it more often would be in vain.
if math.floor(number / 32) ~= math.floor(last / 32) then
  redis.call('XTRIM', stream, 'MAXLEN', '~', retain)
end
if retain_ms ~= '0' then
  for _ = 1, number - last + 4 do  -- a few more than were added: bounded, and it catches up
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local old, at = string.match(first[1], '^(%d+)-(%d+)$')
    if tonumber(old) >= number or tonumber(at) >= ms - retain_ms then break end
    redis.call('XDEL', stream, first[1])
  end
end
return reply
""",
)

# ARGV: attempt, number and ms (0: unknown) of the position, limit, bytes. Returns {"lost"}; {"empty"}, with epoch and
# base where there is a log; or {epoch, base, text} with, for each entry, a line of "number-ms lengths of topic, event
# (-1: none), id, data" and these four. One string, because a client in Python needs ten times as long to read the
# nested reply of XRANGE.
READ: Final = _script(
    "stream log",
    _LOG
    + """
local stream = KEYS[1]
local after, ms, limit, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local epoch, base, last = log_of(KEYS[2])
if not epoch then return {after == 0 and 'empty' or 'lost'} end
if after == 0 then after = base end
if after < base or after > last then return {'lost'} end

local out, size, count, number = {}, 0, 0, after
local from, step = after, math.min(10, limit + 1)
while count < limit and size < bytes do
  local page = redis.call('XRANGE', stream, string.format('%.0f', from), '+', 'COUNT', step)
  local whole = #page == step
  for _, entry in ipairs(page) do
    local at, when = string.match(entry[1], '^(%d+)-(%d+)$')
    at = tonumber(at)
    if at == after then
      if ms > 0 and tonumber(when) ~= ms then return {'lost'} end
    elseif at ~= number + 1 then
      if count == 0 then return {'lost'} end
      whole = false  -- somebody deleted an entry: the next read, from before the hole, says so
      break
    elseif count < limit and size < bytes then
      local topic, data, event, id = '', '', false, ''
      local fields = entry[2]
      for index = 1, #fields, 2 do
        local name, value = fields[index], fields[index + 1]
        if name == 'topic' then topic = value
        elseif name == 'data' then data = value
        elseif name == 'event' then event = value
        elseif name == 'id' then id = value end
      end
      out[#out + 1] = entry[1] .. ' ' .. #topic .. ' ' .. (event and #event or -1) .. ' ' .. #id .. ' ' .. #data
        .. '\\n' .. topic .. (event or '') .. id .. data
      number, count, size = at, count + 1, size + #topic + #data
    end
  end
  if not whole then break end
  from = number + 1
  -- Pages grow while entries are small, so that no page holds much more than what may be returned.
  step = math.max(1, math.min(200, math.floor((bytes - size) / math.max(1, size / math.max(1, count)))))
end
local start = string.format('%.0f', base)
if count == 0 then return after == last and {'empty', epoch, start} or {'lost'} end
return {epoch, start, table.concat(out)}
""",
)

# ARGV: attempt, "head" or "floor". Returns {number, ms}; 0 for the beginning of a log that lost nothing.
EDGE: Final = _script(
    "stream log",
    _LOG
    + """
local epoch, base, last, ms = log_of(KEYS[2])
if not epoch then return {'0', '0'} end
if ARGV[2] == 'floor' then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if first then
    last, ms = tonumber(string.match(first[1], '^%d+')) - 1, '0'
    if last <= base then return {'0', '0'} end
  end
end
return {string.format('%.0f', last), ms}
""",
)

# ARGV: attempt, id; where it looks like one of the log's own also: epoch, number from the base, last digits of the ms.
# Returns {number, ms}, or {} where there is no such entry. ms 0: it was the last one that was trimmed.
LOCATE: Final = _script(
    "stream log ids",
    _LOG
    + """
local epoch, base, last = log_of(KEYS[2])
if not epoch then return {} end
local number = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or nil)
local own = number ~= nil
if not own then
  if ARGV[3] ~= epoch then return {} end
  number = base + ARGV[4]
  if number > last then return {} end
end
local text = string.format('%.0f', number)
local entry = redis.call('XRANGE', KEYS[1], text, text)[1]
if not entry then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if first and tonumber(string.match(first[1], '^%d+')) == number + 1 then return {text, '0'} end
  return {}
end
local ms = string.match(entry[1], '%d+$')
if own then return {text, ms} end
if tonumber(ms) % 100000 ~= tonumber(ARGV[5]) then return {} end
for index = 1, #entry[2], 2 do
  if entry[2][index] == 'id' then return {} end  -- it was published under that id alone
end
return {text, ms}
""",
)

# The clock of leases is made of steps of the server's own: a step back counts nothing, a step forward (also a time in
# which nobody looked) five seconds at most, so that a clock set right does not end every lease at once.
_CLOCK: Final = """
local function clock(key)
  local time = redis.call('TIME')
  local wall = time[1] * 1000 + math.floor(time[2] / 1000)
  local seen = redis.call('HMGET', key, 'wall', 'clock')
  local step = math.max(0, math.min(5000, wall - (tonumber(seen[1]) or wall)))
  local now = (tonumber(seen[2]) or 0) + step
  redis.call('HSET', key, 'wall', string.format('%.0f', wall), 'clock', string.format('%.0f', now))
  return now
end
"""

# ARGV: attempt, name, holder, milliseconds. Returns the holder now in force.
CLAIM: Final = _script(
    "leases lease-ends stops clock",
    _CLOCK
    + """
local now = clock(KEYS[4])
if redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3]) == 0 then return redis.call('HGET', KEYS[1], ARGV[2]) end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[4]), ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return ARGV[3]
""",
)

# ARGV: attempt, milliseconds, then name and holder of each. Returns one of "held", "stopping", "lost" for each.
RENEW: Final = _script(
    "leases lease-ends stops clock",
    _CLOCK
    + """
local ends, states = string.format('%.0f', clock(KEYS[4]) + ARGV[2]), {}
for index = 3, #ARGV, 2 do
  local name = ARGV[index]
  if redis.call('HGET', KEYS[1], name) == ARGV[index + 1] then
    redis.call('ZADD', KEYS[2], ends, name)
    states[#states + 1] = redis.call('HGET', KEYS[3], name) == ARGV[index + 1] and 'stopping' or 'held'
  else
    states[#states + 1] = 'lost'
  end
end
return states
""",
)

# ARGV: attempt, name, holder, token. Returns 1 for exactly one caller: who repeats it is known by the token.
RELEASE: Final = _script(
    "leases lease-ends stops released",
    """
local done = KEYS[4] .. ':' .. ARGV[4]
if ARGV[1] ~= '0' and redis.call('EXISTS', done) == 1 then return 1 end
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('SET', done, 1, 'PX', 60000)
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return 1
""",
)

HOLDER: Final = _script("leases", "return redis.call('HGET', KEYS[1], ARGV[2])")

# Returns name, holder, name, holder, ...; at most 100 of them.
EXPIRED: Final = _script(
    "leases lease-ends clock",
    _CLOCK
    + """
if redis.call('EXISTS', KEYS[2]) == 0 then return {} end
local now, found = string.format('%.0f', clock(KEYS[3])), {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  local holder = redis.call('HGET', KEYS[1], name)
  if holder then
    found[#found + 1] = name
    found[#found + 1] = holder
  else
    redis.call('ZREM', KEYS[2], name)
  end
end
return found
""",
)

# ARGV: attempt, name, holder. Returns 1 where the holder has the lease.
REQUEST_STOP: Final = _script(
    "leases stops",
    """
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
""",
)

# ARGV: attempt, process, milliseconds, then topic and count of each. One hash for a process, forgotten as a whole.
ANNOUNCE: Final = _script(
    "processes present",
    """
local mine = KEYS[2] .. ':' .. ARGV[2]
for index = 4, #ARGV, 2 do
  if ARGV[index + 1] == '0' then
    redis.call('HDEL', mine, ARGV[index])
  else
    redis.call('HSET', mine, ARGV[index], ARGV[index + 1])
  end
end
if redis.call('PEXPIRE', mine, ARGV[3]) == 1 then redis.call('SADD', KEYS[1], ARGV[2]) end
for _, process in ipairs(redis.call('SRANDMEMBER', KEYS[1], 3)) do  -- those that died leave no list that grows
  if redis.call('EXISTS', KEYS[2] .. ':' .. process) == 0 then redis.call('SREM', KEYS[1], process) end
end
return 1
""",
)

# ARGV: attempt, process.
LEAVE: Final = _script(
    "processes present",
    """
redis.call('DEL', KEYS[2] .. ':' .. ARGV[2])
redis.call('SREM', KEYS[1], ARGV[2])
return 1
""",
)

# ARGV: attempt, topic. Returns the sum.
PRESENT: Final = _script(
    "processes present",
    """
local sum = 0
for _, process in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  sum = sum + (tonumber(redis.call('HGET', KEYS[2] .. ':' .. process, ARGV[2]) or 0))
end
return sum
""",
)

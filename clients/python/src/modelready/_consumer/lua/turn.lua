-- One step of a consumer: acknowledges what it handled, notes attempts, goes on in its lanes, takes free lanes, reads new entries.
--
-- ARGV[3]   how long it is alive from now on, milliseconds
-- ARGV[4]   for how many entries there is room: first for the lanes that go on, then for free lanes, then for new entries
-- ARGV[5]   how many of the entries that this call gives are begun at once: their attempt is noted here. -1: all that
--           are new, as of a batch it is not known which were begun when it died
-- ARGV[6]   how many of the entries that wait in a lane to give at once
-- ARGV[7]   how many entries may wait in lanes: above it nothing is read; 0: read nothing
-- ARGV[8]   "1": free lanes come before new entries
-- ARGV[9..] count and ids to acknowledge; count and models of which this consumer has nothing more in flight; then pairs of an id
--           that is begun, and the attempt that this is
-- Returns   what is left in the stream: "" (did not look), "more", "full" or the id of the last entry (nothing is); the entries: id,
--           model, attempts before, 1 where it is begun, fields; for each of the pairs 1, or 0 where it is not this consumer's; and
--           how many entries wait in lanes
--
-- A lane that goes on stays with its owner where that has room; else whoever has room takes it.
--
-- Everything is bounded: 100 entries are read, or `room`, and about 1 MB is given, and the last 20 read. No script rolls back, so
-- nothing is read where SET finds the memory full: it could get no lane. What was handled is acknowledged all the same.

local MAX_READ, MAX_BYTES, AT_ONCE = 100, 1048576, 20
local want, begin, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, opened, heads, mine, bytes, left = {}, {}, 0, 0, 0, ''
local is_full = false


local function give(id, lane, attempts, fields, is_head)
  local begun = 0
  if attempts == 0 and (begin < 0 or (is_head and begin > 0)) then
    begin, begun = begin - 1, 1
  end
  claim(me, id, attempts + begun)
  for i = 2, #fields, 2 do
    bytes = bytes + #fields[i]
  end
  entries[#entries + 1] = {id, lane, attempts, begun, fields}
end

-- The first that wait in a lane of mine. Where nothing does the lane ends.
local function go_on(lane)
  for _ = 1, 5 do
    local members, given = first_waiting(lane, heads < want and limit or 1), 0
    if #members == 0 then
      redis.call('HDEL', lanes, lane)
      return
    end
    if heads >= want then
      break
    end
    for _, member in ipairs(members) do
      if given > 0 and bytes > MAX_BYTES then
        break
      end
      redis.call('ZREM', waiting, member)
      local id = id_of(member)
      local pending = pending_with(WAITING, id) -- else a consumer that knows no lanes took it
      local entry = pending and entry_at(id)
      if entry then
        give(id, lane, pending[4], entry[2], given == 0)
        given = given + 1
      elseif pending then
        redis.call('XACK', stream, group, id) -- it was deleted
      end
    end
    if given > 0 then
      heads = heads + 1
      return
    end
  end
  set_free(lane)
end

local function take_free_lanes()
  for _ = 1, MAX_READ do
    local lane = heads + mine < want and redis.call('SPOP', free)
    if not lane then
      return
    end
    local owner = redis.call('HGET', lanes, lane)
    if not owner or owner == '' then
      redis.call('HSET', lanes, lane, me)
      go_on(lane)
    end
  end
end

local function read()
  local seen = 0
  while heads + mine < want do
    if seen >= math.max(MAX_READ, want) or bytes > MAX_BYTES then
      left = 'more'
      return
    end
    local count = math.min(want - heads - mine, AT_ONCE) -- what is read must be given, however large
    local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', stream, '>')
    if not reply then
      local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
      left = last and last[1] or '0-0'
      return
    end
    for _, entry in ipairs(reply[1][2]) do
      local id, lane = entry[1], lane_of(entry[2])
      seen = seen + 1
      if opened[lane] then
        give(id, lane, 0, entry[2], false)
        mine = mine + 1
      elseif redis.call('HEXISTS', lanes, lane) == 0 then
        redis.call('HSET', lanes, lane, me)
        opened[lane] = true
        give(id, lane, 0, entry[2], true)
        mine = mine + 1
      else
        wait_in(lane, id, 0)
      end
    end
  end
  left = 'more'
end

local at = 9

local function next_list()
  local list = {}
  for i = at + 1, at + tonumber(ARGV[at]) do
    list[#list + 1] = ARGV[i]
  end
  at = at + 1 + #list
  return list
end

for _, id in ipairs(next_list()) do
  if pending_with(me, id) then
    redis.call('XACK', stream, group, id)
  end
end
local said = redis.pcall('SET', alive, '1', 'PX', ARGV[3])
if said.err then
  if not string.find(said.err, 'OOM', 1, true) then
    return said
  end
  want, is_full = 0, true
end
local ending = next_list()

local kept = {}
for i = at, #ARGV, 2 do
  local is_mine = pending_with(me, ARGV[i])
  if is_mine then
    claim(me, ARGV[i], ARGV[i + 1])
  end
  kept[#kept + 1] = is_mine and 1 or 0
end

for _, lane in ipairs(ending) do
  if redis.call('HGET', lanes, lane) == me then
    go_on(lane)
  end
end
if is_full then
  left = 'full'
end
if ARGV[8] == '1' then
  take_free_lanes()
end
if want > 0 and ARGV[7] ~= '0' then
  if redis.call('ZCARD', waiting) < tonumber(ARGV[7]) then
    read()
  else
    left = 'full'
  end
end
if ARGV[8] ~= '1' then
  take_free_lanes()
end
return {left, entries, kept, redis.call('ZCARD', waiting)}

-- One step of a consumer: acknowledges what it handled, notes attempts, goes on in its lanes, takes free lanes, reads new entries.
--
-- ARGV[3]   how long it is alive from now on, milliseconds
-- ARGV[4]   for how many entries there is room: first for the lanes that go on, then for free lanes, then for new entries
-- ARGV[5]   how many of the entries that this call gives are begun at once: their attempt is noted here. -1: all that
--           are new, as of a batch it is not known which were begun when it died
-- ARGV[6]   how many entries may wait in lanes: above it nothing is read; 0: read nothing
-- ARGV[7]   "1": free lanes come before new entries
-- ARGV[8..] count and ids to acknowledge; count and models of which this consumer has nothing more in flight; then pairs of an id
--           that is begun, and the attempt that this is
-- Returns   what is left in the stream: "" (did not look), "more", "full" or the id of the last entry (nothing is); the entries: id,
--           model, attempts before, 1 where it is begun, fields; for each of the pairs 1, or 0 where it is not this consumer's; and
--           how many entries wait in lanes
--
-- A lane that goes on stays with its owner where that has room; else a consumer with room takes it.
--
-- A call looks at about 100 entries, in all lanes and the stream together, and gives about 1 MB and the last 20 read, so that it
-- blocks Redis for a millisecond or two. What is left over comes with the next call.

local MAX_ENTRIES, MAX_BYTES, AT_ONCE = 100, 1048576, 20
local want, begin = tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, opened, heads, mine, looked, bytes, left = {}, {}, 0, 0, 0, 0, ''

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

-- Moves one that waits to this consumer. Returns whether it is there.
local function take_waiting(lane, member, is_head)
  looked = looked + 1
  redis.call('ZREM', waiting, member)
  local id = id_of(member)
  local pending = pending_with(WAITING, id) -- else a consumer that knows no lanes took it
  local entry = pending and entry_at(id)
  if entry then
    give(id, lane, pending[4], entry[2], is_head)
  elseif pending then
    redis.call('XACK', stream, group, id) -- it was deleted
  end
  return entry
end

-- The first that wait in a lane of mine, `most` of them or fewer. Where nothing does the lane ends.
local function go_on(lane, most)
  local given = 0
  while given == 0 do
    local has_room = heads < want and looked < MAX_ENTRIES
    local members = first_waiting(lane, has_room and most or 1)
    if #members == 0 then
      redis.call('HDEL', lanes, lane)
      return
    elseif not has_room then
      set_free(lane)
      return
    end
    for _, member in ipairs(members) do
      if given > 0 and bytes > MAX_BYTES then
        break
      elseif take_waiting(lane, member, given == 0) then
        given = given + 1
      end
    end
  end
  heads = heads + 1
end

-- How many entries each of several lanes may give.
local function share(count)
  return math.max(1, math.floor((MAX_ENTRIES - looked) / count))
end

local function take_free_lanes()
  local room = math.min(want - heads - mine, MAX_ENTRIES - looked)
  local found = room > 0 and redis.call('SPOP', free, room) or {}
  local most = share(#found)
  for _, lane in ipairs(found) do
    local owner = redis.call('HGET', lanes, lane)
    if not owner or owner == '' then
      redis.call('HSET', lanes, lane, me)
      go_on(lane, most)
    end
  end
end

local function read()
  while heads + mine < want do
    if looked >= MAX_ENTRIES or bytes > MAX_BYTES then
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
      looked = looked + 1
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

local at = 8

local function next_list()
  local list = {}
  for i = at + 1, at + tonumber(ARGV[at]) do
    list[#list + 1] = ARGV[i]
  end
  at = at + 1 + #list
  return list
end

write_though_memory_is_full()
for _, id in ipairs(next_list()) do
  if pending_with(me, id) then
    redis.call('XACK', stream, group, id)
  end
end
redis.call('SET', alive, '1', 'PX', ARGV[3])
local ending = next_list()

local kept = {}
for i = at, #ARGV, 2 do
  local is_mine = pending_with(me, ARGV[i])
  if is_mine then
    claim(me, ARGV[i], ARGV[i + 1])
  end
  kept[#kept + 1] = is_mine and 1 or 0
end

local most = share(#ending)
for _, lane in ipairs(ending) do
  if redis.call('HGET', lanes, lane) == me then
    go_on(lane, most)
  end
end
if ARGV[7] == '1' then
  take_free_lanes()
end
if want > 0 and ARGV[6] ~= '0' then
  if redis.call('ZCARD', waiting) < tonumber(ARGV[6]) then
    read()
  else
    left = 'full'
  end
end
if ARGV[7] ~= '1' then
  take_free_lanes()
end
return {left, entries, kept, redis.call('ZCARD', waiting)}

-- One step of a consumer: it acknowledges what was handled, counts attempts, continues its lanes, takes free lanes and reads
-- new entries.
--
-- ARGV[3]   when the alive key expires, in milliseconds from now
-- ARGV[4]   how many entries the consumer has room for: first those of its own lanes, then of free lanes, then new ones
-- ARGV[5]   how many of the returned entries are begun at once: their attempt is counted here. -1: all new ones, for a batch,
--           since nobody knows which of its entries were begun when the consumer dies
-- ARGV[6]   how many entries may wait in lanes: above that nothing is read; 0: read nothing
-- ARGV[7]   "1" if free lanes come before new entries
-- ARGV[8..] the number of ids to acknowledge, and the ids; the number of models of which this consumer has nothing more in
--           flight, and the models; then pairs of an id that is begun and the number of this attempt
-- Returns   what is left in the stream: "" (not read), "more", "full", or the id of the last entry (nothing is left); the
--           entries, each with its id, model, number of attempts before, 1 if it is begun, and those of its fields that say
--           what it holds; for each pair 1, or 0 if the entry is not this consumer's; and how many entries wait in lanes
--
-- A lane that continues stays with its owner if that has room; otherwise a consumer with room takes it.
--
-- A call examines about 100 entries, in all lanes and the stream together, which hold at most about 1 MB besides the last 20
-- that it read, so it blocks Redis for a millisecond or two. The next call returns the rest.

local MAX_ENTRIES, MAX_BYTES, AT_ONCE = 100, 1048576, 20
local NEEDED = {['content-type'] = true, data = true, replay_group = true} -- the others repeat what `data` says
local want, begin = tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, opened, heads, mine, looked, bytes, left = {}, {}, 0, 0, 0, 0, ''

-- All fields count: Redis has copied those that are not returned, too.
local function count_bytes(fields)
  for i = 2, #fields, 2 do
    bytes = bytes + #fields[i]
  end
end

-- `count`: the delivery count that the entry has with this consumer in Redis; nil if it must be claimed first.
local function give(id, lane, attempts, fields, is_head, count)
  local begun = 0
  if attempts == 0 and (begin < 0 or (is_head and begin > 0)) then
    begin, begun = begin - 1, 1
  end
  if count ~= attempts + begun then
    claim(me, id, attempts + begun)
  end
  local needed = {}
  for i = 1, #fields, 2 do
    if NEEDED[fields[i]] then
      needed[#needed + 1] = fields[i]
      needed[#needed + 1] = fields[i + 1]
    end
  end
  entries[#entries + 1] = {id, lane, attempts, begun, needed}
end

-- Moves a waiting entry to this consumer. Returns whether the entry exists.
local function take_waiting(lane, member, is_head)
  looked = looked + 1
  redis.call('ZREM', waiting, member)
  local id = id_of(member)
  local pending = pending_with(WAITING, id) -- if not, a consumer that knows no lanes took it
  local entry = pending and entry_at(id)
  if entry then
    count_bytes(entry[2])
    give(id, lane, pending[4], entry[2], is_head)
  elseif pending then
    redis.call('XACK', stream, group, id) -- it was deleted
  end
  return entry
end

-- Gives at most `most` of the entries that wait in a lane of this consumer. A lane without any is closed.
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

-- How many entries each of `count` lanes may give.
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

-- Takes entries that were just read: XREADGROUP has counted a delivery of each. One whose model has no lane opens one.
-- `some_exist`: whether there may be lanes beside those that this call opened.
local function take_new(read, some_exist)
  local models, opening, heads_of = {}, {}, {}
  for i, entry in ipairs(read) do
    local lane = lane_of(entry[2])
    models[i] = lane
    if not opened[lane] and not (some_exist and redis.call('HEXISTS', lanes, lane) == 1) then
      opened[lane], heads_of[i] = true, true
      opening[#opening + 1] = lane
      opening[#opening + 1] = me
    end
  end
  if #opening > 0 then
    redis.call('HSET', lanes, unpack(opening))
  end
  for i, entry in ipairs(read) do
    looked = looked + 1
    count_bytes(entry[2])
    if opened[models[i]] then
      give(entry[1], models[i], 0, entry[2], heads_of[i], 1)
      mine = mine + 1
    else
      wait_in(models[i], entry[1], 0)
    end
  end
end

local function read()
  local some_exist = redis.call('EXISTS', lanes) == 1
  while heads + mine < want do
    if looked >= MAX_ENTRIES or bytes > MAX_BYTES then
      left = 'more'
      return
    end
    local count = math.min(want - heads - mine, AT_ONCE) -- every entry that is read must be returned, however large
    local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', stream, '>')
    if not reply then
      local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
      left = last and last[1] or '0-0'
      return
    end
    take_new(reply[1][2], some_exist)
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

-- Acknowledges those of the ids that are pending with this consumer. One page has most of them: they are about the oldest it has
-- in flight.
local function acknowledge(ids)
  if #ids == 0 then
    return
  end
  local is_mine, found = {}, {}
  for _, pending in ipairs(redis.call('XPENDING', stream, group, ids[1], '+', 2 * #ids, me)) do
    is_mine[pending[1]] = true
  end
  for _, id in ipairs(ids) do
    if is_mine[id] or pending_with(me, id) then
      found[#found + 1] = id
    end
  end
  if #found > 0 then
    redis.call('XACK', stream, group, unpack(found))
  end
end

-- Continues or closes those of these lanes that are this consumer's.
local function go_on_with(ending)
  local own = {}
  for _, lane in ipairs(ending) do
    if redis.call('HGET', lanes, lane) == me then
      own[#own + 1] = lane
    end
  end
  if #own > 0 and redis.call('ZCARD', waiting) == 0 then
    redis.call('HDEL', lanes, unpack(own)) -- what go_on does one by one
    return
  end
  local most = share(#ending)
  for _, lane in ipairs(own) do
    go_on(lane, most)
  end
end

write_though_memory_is_full()
acknowledge(next_list())
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

go_on_with(ending)
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

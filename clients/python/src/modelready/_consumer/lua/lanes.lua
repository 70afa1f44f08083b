-- Shared by the consumer's scripts: this text is put before each of them. docs/adr/0014 says why it keeps the order.
--
-- A model with entries in flight has a lane in the group, and a lane has one owner. Entries of that model that other consumers
-- read wait in the lane until the owner has acknowledged the ones before them.
--
-- KEYS[1]  stream
-- KEYS[2]  lanes, a hash: model -> the consumer that owns its lane; "" for a lane without an owner, which is in `free`
-- KEYS[3]  waiting, a sorted set of score 0: "<length of the model>:<model> <id, padded>". These entries are pending with the
--          consumer WAITING, so that exactly the entries in flight are pending with a real consumer
-- KEYS[4]  free, a set: the models whose lane the next consumer with room takes
-- KEYS[5]  alive, a string that expires: it exists while this consumer is alive
-- ARGV     the group, this consumer, then the arguments of each script

local stream, lanes, waiting, free, alive = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, me = ARGV[1], ARGV[2]
local WAITING = 'waiting'

-- When memory is full, Redis checks only the first write of a script. XACK is allowed then, so it comes first: otherwise a
-- backlog that fills the memory could never shrink.
local function write_though_memory_is_full()
  redis.call('XACK', stream, group, '0-0')
end

-- The model: partitionkey; in entries older than that field, the subject up to its last slash.
local function lane_of(fields)
  local subject = ''
  for i = 1, #fields, 2 do
    if fields[i] == 'partitionkey' then
      return fields[i + 1]
    elseif fields[i] == 'ce_subject' then
      subject = fields[i + 1]
    end
  end
  return string.match(subject, '^(.*)/') or subject
end

-- The length comes first, so that no model's prefix begins another model's, whatever bytes a name has.
local function prefix_of(lane)
  return #lane .. ':' .. lane .. ' '
end

local function lane_of_member(member)
  local length = string.match(member, '^(%d+):')
  return string.sub(member, #length + 2, #length + 1 + tonumber(length))
end

local function pad(number)
  return string.rep('0', 20 - #number) .. number
end

local function member_of(lane, id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return prefix_of(lane) .. pad(ms) .. '-' .. pad(number)
end

local function id_of(member)
  local ms, number = string.match(string.sub(member, -41), '^0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. number
end

local function first_waiting(lane, count)
  local prefix = prefix_of(lane)
  return redis.call('ZRANGEBYLEX', waiting, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, count)
end

local function pending_with(consumer, id)
  return redis.call('XPENDING', stream, group, id, id, 1, consumer)[1]
end

local function entry_at(id)
  return redis.call('XRANGE', stream, id, id)[1]
end

-- Claims an entry without counting a delivery. `attempts`: how many times the entry was begun.
local function claim(consumer, id, attempts)
  redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', attempts, 'JUSTID')
end

local function wait_in(lane, id, attempts)
  redis.call('ZADD', waiting, 0, member_of(lane, id))
  claim(WAITING, id, attempts)
end

local function set_free(lane)
  redis.call('HSET', lanes, lane, '')
  redis.call('SADD', free, lane)
end

-- What the other consumers of a group have in hand.
--
-- KEYS[1]  the stream
-- ARGV     group, this consumer, an id: what is up to it is named without its subject, as the caller has read it before
-- Returns  for each entry, each consumer's in the stream's order: its id, its ce_subject ("" where it has none, or is known)

local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
-- It holds what was replayed until somebody takes it over. Nobody waits for that: it has failed, and others of its model
-- went on. There may be a hundred thousand of them.
local REPLAYED = 'replay'

local function parts(id)
  return string.match(id, '^(%d+)-(%d+)$')
end

-- Ids are longer than a Lua number is exact.
local function compare(one, other)
  if #one ~= #other then
    return #one - #other
  end
  return one == other and 0 or (one < other and -1 or 1)
end

local known_ms, known_seq = parts(ARGV[3])

local function is_known(id)
  local ms, seq = parts(id)
  local order = compare(ms, known_ms)
  return order < 0 or (order == 0 and compare(seq, known_seq) <= 0)
end

local function subject(id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  local fields = entry and entry[2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'ce_subject' then
      return fields[i + 1]
    end
  end
  return ''
end

-- Consumer by consumer: Redis finds the entries of one without a look at all that are pending.
local others = {}
for _, consumer in ipairs(redis.call('XPENDING', stream, group)[4] or {}) do
  local name, from = consumer[1], '-'
  while name ~= me and name ~= REPLAYED do
    local page = redis.call('XPENDING', stream, group, from, '+', 1000, name)
    for _, pending in ipairs(page) do
      others[#others + 1] = pending[1]
      others[#others + 1] = is_known(pending[1]) and '' or subject(pending[1])
    end
    if #page < 1000 then
      break
    end
    from = '(' .. page[#page][1]
  end
end
return others

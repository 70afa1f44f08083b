-- Puts a dead letter back into the queue and removes it from the dead letters, in one step.
--
-- KEYS[1]    the stream
-- KEYS[2]    the stream of dead letters
-- KEYS[3]    the event's dedup key
-- KEYS[4]    the dedup key of the event's dead letter
-- KEYS[5..]  the mirror lists to push to; may be none
-- ARGV[1]    the dead letter's id
-- ARGV[2]    the group that it goes back to; "" for all groups
-- ARGV[3]    "1" if the sidecar wrote the dead letter: it is not appended again if its event is in the stream after all
-- ARGV[4]    dedup window, milliseconds
-- ARGV[5]    the consumer that keeps an entry for the group until one of the group's own consumers takes it over
-- ARGV[6..]  the message for each list
-- Returns    "done", "missing" or "skipped"
--
-- A failing script does not roll back. So the commands that can fail come first: keys of another type are found before
-- anything is written, and the pushes, which a full memory refuses, come before the entry. Whether the user may XDEL and
-- DEL is checked before the call (DeadLetterStream.check_rights).

local stream, dead, seen, seen_dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, group, own, window = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local YEAR_MS = '31536000000' -- longer than any consumer waits before it takes over

local letter = redis.call('XRANGE', dead, id, id)[1]
if not letter then
  return 'missing'
end
redis.call('XLEN', stream)
for i = 5, #KEYS do
  redis.call('LLEN', KEYS[i])
end

local fields, entry_id = {}, ''
for i = 1, #letter[2], 2 do
  local name, value = letter[2][i], letter[2][i + 1]
  if name == 'dl_entry_id' then
    entry_id = value
  elseif string.sub(name, 1, 3) ~= 'dl_' and name ~= 'replay_group' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

-- Compares ids as text: their numbers have more digits than a Lua number.
local function before(one, other)
  local a, b = {string.match(one, '^(%d+)-(%d+)$')}, {string.match(other, '^(%d+)-(%d+)$')}
  for i = 1, 2 do
    if a[i] ~= b[i] then
      return #a[i] < #b[i] or (#a[i] == #b[i] and a[i] < b[i])
    end
  end
  return false
end

-- Returns the last id that the group was given, nil if there is no such group; and an error.
local function last_delivered()
  local infos = redis.pcall('XINFO', 'GROUPS', stream)
  if infos.err then
    return nil, not string.find(infos.err, 'no such key') and infos or nil
  end
  for _, info in ipairs(infos) do
    local of = {}
    for i = 1, #info, 2 do
      of[info[i]] = info[i + 1]
    end
    if of['name'] == group then
      return of['last-delivered-id']
    end
  end
end

if group ~= '' then
  local last, problem = last_delivered()
  if not last then
    return problem or 'skipped'
  end
  local exists = string.match(entry_id, '^%d+%-%d+$') and #redis.call('XRANGE', stream, entry_id, entry_id) == 1
  if not exists then
    if #fields == 0 then
      return 'skipped'
    end
    fields[#fields + 1] = 'replay_group'
    fields[#fields + 1] = group
    redis.call('XADD', stream, '*', unpack(fields))
  elseif before(last, entry_id) or #redis.call('XPENDING', stream, group, entry_id, entry_id, 1) == 1 then
    -- Nothing to do: the group was set back and will read the entry, or a consumer has it in flight.
  else
    redis.call('XCLAIM', stream, group, ARGV[5], 0, entry_id, 'IDLE', YEAR_MS, 'RETRYCOUNT', 0, 'FORCE', 'JUSTID')
  end
else
  local known = own and redis.call('GET', seen)
  local entry = known and string.match(known, '^%d+%-%d+') -- "-" alone: never appended
  -- append.lua leaves "<id>!<number of lists that have it>" where some lists lack the event.
  local unfinished = entry and string.match(known, '!(%d*)$')
  local pushed = entry and not unfinished and #KEYS or tonumber(unfinished or '') or 0
  for i = 5 + pushed, #KEYS do
    redis.call('LPUSH', KEYS[i], ARGV[i + 1])
  end
  if not entry then
    entry = redis.call('XADD', stream, '*', unpack(fields))
  end
  redis.call('SET', seen, entry, 'PX', window)
end

if redis.call('GET', seen_dead) == id then
  redis.call('DEL', seen_dead)
end
redis.call('XDEL', dead, id)
return 'done'

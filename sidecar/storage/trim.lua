-- Removes entries that every group has acknowledged and that are old enough; a bounded number a call.
--
-- KEYS[1]  the stream
-- ARGV[1]  the retention's cut: what was appended at this id or later is kept
-- ARGV[2]  the most entries to remove, about
-- Returns  how many were removed; 0 when nothing is left to remove
--
-- All is looked up in this one step, so that a group which is made or set back at any moment keeps what it has open.
-- Without groups nobody has acknowledged anything. Ids are compared as text: their numbers have more digits than a Lua
-- number holds.

local stream, floor = KEYS[1], ARGV[1]

local function before(one, other)
  local a, b = {string.match(one, '^(%d+)-(%d+)$')}, {string.match(other, '^(%d+)-(%d+)$')}
  for i = 1, 2 do
    if a[i] ~= b[i] then
      return #a[i] < #b[i] or (#a[i] == #b[i] and a[i] < b[i])
    end
  end
  return false
end

local function after(id)
  local time, sequence = string.match(id, '^(%d+)-(%d+)$')
  if #sequence > 15 then
    return id -- one entry more is kept
  end
  return time .. '-' .. string.format('%.0f', tonumber(sequence) + 1)
end

local groups = redis.pcall('XINFO', 'GROUPS', stream)
if groups.err then
  return string.find(groups.err, 'no such key') and 0 or groups
end
if #groups == 0 then
  return 0
end
for _, info in ipairs(groups) do
  local group = {}
  for i = 1, #info, 2 do
    group[info[i]] = info[i + 1]
  end
  local open = {after(group['last-delivered-id'])}
  if group['pending'] > 0 then
    open[2] = redis.call('XPENDING', stream, group['name'])[2]
  end
  for _, id in ipairs(open) do
    if before(id, floor) then
      floor = id
    end
  end
end

-- "~" removes whole nodes only, and alone knows LIMIT; what is left then is a part of one node.
local removed = redis.call('XTRIM', stream, 'MINID', '~', floor, 'LIMIT', ARGV[2])
if removed == 0 then
  removed = redis.call('XTRIM', stream, 'MINID', floor)
end
return removed

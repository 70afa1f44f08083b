-- Removes entries that every group has acknowledged and that are past the retention; a bounded number a call.
--
-- KEYS[1]  the stream
-- KEYS[2]  a string: since when events are mirrored to lists, in Unix milliseconds
-- ARGV[1]  the id where the retention begins: this entry and later ones are kept
-- ARGV[2]  about the most entries to remove
-- ARGV[3]  the time now in Unix milliseconds if events are mirrored to lists, else ""
-- Returns  how many were removed; 0 when nothing is left to remove
--
-- Everything is read in this one step, so a group that is created or set back at any moment loses nothing. Without groups
-- no entry is acknowledged, but the lists have the events that were appended since the mirror began. Then age alone
-- decides, from one retention after the mirror began: entries from before it are kept for that long, in case a group is
-- created. Ids are compared as text: their numbers have more digits than a Lua number.
-- The script ends as soon as something keeps the oldest entry: with 1,000 groups the rest takes milliseconds.

local stream = KEYS[1]
local floor = ARGV[1]
local floor_time, floor_sequence

local function parse(id)
  return string.match(id, '^(%d+)-(%d+)$')
end

local function less(one, other)
  return #one < #other or (#one == #other and one < other)
end

local function lower_to(id)
  floor = id
  floor_time, floor_sequence = parse(id)
end

local function below_floor(time, sequence)
  return less(time, floor_time) or (time == floor_time and less(sequence, floor_sequence))
end

local function after(time, sequence)
  if #sequence > 15 then
    return time .. '-' .. sequence -- keeps one entry more
  end
  return time .. '-' .. string.format('%.0f', tonumber(sequence) + 1)
end

lower_to(floor)
local mirrored_since
if ARGV[3] == '' then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], ARGV[3], 'NX')
  mirrored_since = redis.call('GET', KEYS[2])
end
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local oldest_time, oldest_sequence = parse(oldest and oldest[1] or '0-0')
if not oldest or not below_floor(oldest_time, oldest_sequence) then
  return 0
end
local groups = redis.call('XINFO', 'GROUPS', stream)
if #groups == 0 and not (mirrored_since and below_floor(mirrored_since, '0')) then
  return 0
end
for _, info in ipairs(groups) do
  local group = {}
  for i = 1, #info, 2 do
    group[info[i]] = info[i + 1]
  end
  local time, sequence = parse(group['last-delivered-id'])
  if below_floor(time, sequence) then
    lower_to(after(time, sequence))
  end
  if group['pending'] > 0 then
    local open = redis.call('XPENDING', stream, group['name'], '-', '(' .. floor, 1)[1]
    if open then
      lower_to(open[1])
    end
  end
  if not below_floor(oldest_time, oldest_sequence) then
    return 0
  end
end

-- Only "~" allows LIMIT, and it removes whole nodes only. What it leaves is a part of one node.
local removed = redis.call('XTRIM', stream, 'MINID', '~', floor, 'LIMIT', ARGV[2])
if removed == 0 then
  removed = redis.call('XTRIM', stream, 'MINID', floor)
end
return removed

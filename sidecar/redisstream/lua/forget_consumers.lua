-- Removes names from a consumer group that have asked for nothing for long.
--
-- KEYS[1]   the stream
-- ARGV[1]   the group
-- ARGV[2]   the least time without a request, milliseconds
-- ARGV[3..] names of consumers that no process has
-- Returns   how many were removed
--
-- XGROUP DELCONSUMER drops what is pending with the name, so a name with pending entries stays, and both are one step. The name
-- that asked last stays, too: by it the status says since when nobody reads the group.

local stream, group, longest = KEYS[1], ARGV[1], tonumber(ARGV[2])
local nobody = {}
for i = 3, #ARGV do
  nobody[ARGV[i]] = true
end

local infos = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if infos.err then
  if string.find(infos.err, 'NOGROUP') or string.find(infos.err, 'no such key') then
    return 0
  end
  return infos
end
local consumers, last = {}, nil
for _, info in ipairs(infos) do
  local of = {}
  for i = 1, #info, 2 do
    of[info[i]] = info[i + 1]
  end
  if not nobody[of['name']] then
    consumers[#consumers + 1] = of
    if not last or of['idle'] < last['idle'] then
      last = of
    end
  end
end

local removed = 0
for _, of in ipairs(consumers) do
  if of ~= last and of['idle'] >= longest and of['pending'] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, of['name'])
    removed = removed + 1
  end
end
return removed

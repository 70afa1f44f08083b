-- Removes a consumer group and its lanes, and creates it again if it is only to begin elsewhere, in one step.
--
-- KEYS[1]    the stream
-- KEYS[2..4] the group's lanes, the entries that wait in them, and the free ones
-- ARGV[1]    the group
-- ARGV[2]    where it begins again, an id or "$"; "" to remove it
-- ARGV[3]    milliseconds: a consumer that asked for something within them reads the group, which is then left alone
-- ARGV[4..]  names of consumers that no process has
-- Returns    "done", "missing" or "read"

local stream, group, start, recent = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local nobody = {}
for i = 4, #ARGV do
  nobody[ARGV[i]] = true
end

local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if consumers.err then
  if string.find(consumers.err, 'NOGROUP') or string.find(consumers.err, 'no such key') then
    return 'missing'
  end
  return consumers
end
for _, info in ipairs(consumers) do
  local of = {}
  for i = 1, #info, 2 do
    of[info[i]] = info[i + 1]
  end
  if not nobody[of['name']] and of['idle'] < recent then
    return 'read'
  end
end

redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
if start ~= '' then
  redis.call('XGROUP', 'CREATE', stream, group, start)
end
return 'done'

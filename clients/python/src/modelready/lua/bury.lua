-- Makes a dead letter of an entry that is still pending with this consumer, and acknowledges it: both or neither.
--
-- KEYS     the stream, the stream of dead letters
-- ARGV     group, consumer, id, then the fields and values that the dead letter has besides the entry's own
-- Returns  1, or 0 where the entry is not pending with this consumer any more: it was done before, or is another's

local stream, group, me, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if #redis.call('XPENDING', stream, group, id, id, 1, me) == 0 then
  return 0
end
local entry = redis.call('XRANGE', stream, id, id)[1]
if entry then
  local fields = {}
  for i = 1, #entry[2], 2 do
    local name = entry[2][i]
    if name ~= 'replay_group' and string.sub(name, 1, 3) ~= 'dl_' then
      fields[#fields + 1] = name
      fields[#fields + 1] = entry[2][i + 1]
    end
  end
  for i = 4, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  redis.call('XADD', KEYS[2], '*', unpack(fields))
end
redis.call('XACK', stream, group, id)
return 1

-- Takes the lease of a message in flight, or extends it.
--
-- KEYS     the list of messages in flight, the message's lease
-- ARGV     the message, the holder's token, the lease in milliseconds
-- Returns  1 when this holder has it; 0 when another has, or when the message is no longer in flight

if not redis.call('LPOS', KEYS[1], ARGV[1]) then
  return 0
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1

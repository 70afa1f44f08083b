-- Takes or extends the lease of a message in flight.
--
-- KEYS     the list of messages in flight, the message's lease
-- ARGV     the message, the holder's token, the lease in milliseconds
-- Returns  1 if this holder has the lease; 0 if another holder has it, or the message is no longer in flight

if not redis.call('LPOS', KEYS[1], ARGV[1]) then
  return 0
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1

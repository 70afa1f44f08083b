-- Takes a message out of the list of those in flight, and pushes it to another list where one is named.
--
-- KEYS     the list of messages in flight, the message's lease, and optionally the list to push to
-- ARGV     the message, the holder's token ("" to take one without a lease), and to push: LPUSH or RPUSH, and what
-- Returns  1, or 0 when another has the message, or when it is no longer in flight
--
-- A failing script does not roll back: the push, which a full memory refuses, comes first.

local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then
  return 0
end
if not redis.call('LPOS', KEYS[1], ARGV[1]) then
  return 0
end
if KEYS[3] then
  redis.call(ARGV[3], KEYS[3], ARGV[4])
end
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('DEL', KEYS[2])
return 1

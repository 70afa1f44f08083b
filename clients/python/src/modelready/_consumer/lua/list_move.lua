-- Removes a message from the list of messages in flight, and pushes it to another list if one is named.
--
-- KEYS     the list of messages in flight, the message's lease, and optionally the list to push to
-- ARGV     the message, the holder's token ("" for a message without a lease); to push: LPUSH or RPUSH, and the new message
-- Returns  1, or 0 if another holder has the message, or it is no longer in flight
--
-- A failing script does not roll back. So the push, which a full memory refuses, comes first.

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

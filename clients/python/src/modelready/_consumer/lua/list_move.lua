-- Takes a message out of the list of those in hand, and puts it elsewhere where it is told to.
--
-- KEYS     the list of messages in hand, the message's lease, and optionally the list to push to
-- ARGV     the message, the holder's token ("" for nobody's), and to push: LPUSH or RPUSH, and what
-- Returns  1, or 0 when another has the message, or when it is in nobody's hand any more
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

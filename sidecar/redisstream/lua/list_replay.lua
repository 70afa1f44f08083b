-- Puts a message that a consumer of a mirror list has given up back into the list, in one step.
--
-- KEYS     the list of given-up messages, the mirror list
-- ARGV     the message as it is in the first list, and as it goes back
-- Returns  "done" or "missing"
--
-- A failing script does not roll back. So the push, which fails if memory is full or the key has another type, comes first.

if not redis.call('LPOS', KEYS[1], ARGV[1], 'RANK', -1) then -- from the end, where the oldest is
  return 'missing'
end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LREM', KEYS[1], -1, ARGV[1])
return 'done'

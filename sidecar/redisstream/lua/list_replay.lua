-- Puts one message that a consumer of a mirror list gave up back into the list, in one step.
--
-- KEYS     the list of those given up, the mirror list
-- ARGV     the message as it stands there, and as it goes back
-- Returns  "done" or "missing"
--
-- A failing script does not roll back: the push, which a full memory or a key of another type refuses, comes first.

if not redis.call('LPOS', KEYS[1], ARGV[1], 'RANK', -1) then -- the oldest stands last
  return 'missing'
end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LREM', KEYS[1], -1, ARGV[1])
return 'done'

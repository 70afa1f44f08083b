-- Releases a reservation.
--
-- KEYS[1]  the event's key
-- ARGV     the holder's token
-- Returns  1, or 0 if another holder has it

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0

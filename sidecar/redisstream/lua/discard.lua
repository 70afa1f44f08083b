-- Removes dead letters.
--
-- KEYS[1]    the stream of dead letters
-- KEYS[2..]  the dedup key of each dead letter
-- ARGV[1..]  the dead letters' ids
-- Returns    how many were removed

local removed = 0
for i = 1, #ARGV do
  if redis.call('GET', KEYS[i + 1]) == ARGV[i] then
    redis.call('DEL', KEYS[i + 1]) -- the event may become a dead letter again
  end
  removed = removed + redis.call('XDEL', KEYS[1], ARGV[i])
end
return removed

-- Removes a consumer's name from its group, unless something is pending with it: that would be lost.
--
-- KEYS[1]  the stream
-- ARGV     group, consumer
-- Returns  1 where the name is gone

if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1

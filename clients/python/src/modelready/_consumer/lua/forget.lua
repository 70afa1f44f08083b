-- Removes a consumer from the group, unless entries are pending with it: they would be lost.
--
-- ARGV[3]  the consumer
-- Returns  1 if the consumer was removed

if #redis.call('XPENDING', stream, group, '-', '+', 1, ARGV[3]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', stream, group, ARGV[3])
if ARGV[3] == me then
  redis.call('UNLINK', alive)
end
return 1

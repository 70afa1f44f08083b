-- Reserves an event for one holder, or extends its lease.
--
-- KEYS[1]  the event's key
-- KEYS[2]  the key that the previous version used for it, if different; only read
-- ARGV     the holder's token, the lease in milliseconds
-- Returns  0: this holder has it; -1: it is done; else the milliseconds until another holder's lease expires

for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held == 'done' then
    return -1
  end
  if held and held ~= ARGV[1] then
    return math.max(1, redis.call('PTTL', key))
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0

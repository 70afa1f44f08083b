-- Extends a consumer's claim on its entries, counts an attempt, or gives entries back; only those that are still its own.
--
-- KEYS[1]  the stream
-- ARGV     group, consumer, then for each entry: its id, the number of deliveries to note ("" leaves it as it is), and the
--          idle milliseconds to note (0 to keep it; many, so that the next consumer that looks may take it)
-- Returns  for each 1, or 0 where the entry is not pending with this consumer any more

local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
local kept = {}
for i = 3, #ARGV, 3 do
  local id, times = ARGV[i], ARGV[i + 1]
  if #redis.call('XPENDING', stream, group, id, id, 1, me) == 0 then
    kept[#kept + 1] = 0
  else
    if times == '' then
      redis.call('XCLAIM', stream, group, me, '0', id, 'IDLE', ARGV[i + 2], 'JUSTID')
    else
      redis.call('XCLAIM', stream, group, me, '0', id, 'IDLE', ARGV[i + 2], 'RETRYCOUNT', times, 'JUSTID')
    end
    kept[#kept + 1] = 1
  end
end
return kept

-- Renews this consumer's alive key and its claims on entries. Consumers that know no lanes go by the age of a claim.
--
-- ARGV[3]   when the alive key expires, in milliseconds from now
-- ARGV[4..] ids
-- Returns   for each id 1, or 0 if the entry is no longer pending with this consumer

write_though_memory_is_full()
redis.call('SET', alive, '1', 'PX', ARGV[3])
local kept = {}
for i = 4, #ARGV do
  local pending = pending_with(me, ARGV[i])
  if pending then
    claim(me, ARGV[i], pending[4])
  end
  kept[#kept + 1] = pending and 1 or 0
end
return kept

-- Says that this consumer lives, and extends its claim on entries. Those that know no lanes go by a claim's age.
--
-- ARGV[3]   how long it is alive from now on, milliseconds
-- ARGV[4..] ids
-- Returns   for each id 1, or 0 where the entry is not pending with this consumer any more

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

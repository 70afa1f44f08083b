-- Makes the group where it is not there. Lanes of a group of this name that is gone mean nothing.
--
-- ARGV[3]  where the group begins: "0" or "$"
-- Returns  1 where it was made

write_though_memory_is_full()
local made = redis.pcall('XGROUP', 'CREATE', stream, group, ARGV[3], 'MKSTREAM')
if type(made) == 'table' and made.err then
  return string.find(made.err, 'BUSYGROUP') and 0 or made
end
redis.call('UNLINK', lanes, waiting, free)
return 1

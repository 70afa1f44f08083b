-- Creates the group if it does not exist, and deletes the lanes of a removed group of the same name.
--
-- ARGV[3]  where the group begins: "0" or "$"
-- Returns  1 if it was created

write_though_memory_is_full()
local made = redis.pcall('XGROUP', 'CREATE', stream, group, ARGV[3], 'MKSTREAM')
if type(made) == 'table' and made.err then
  return string.find(made.err, 'BUSYGROUP') and 0 or made
end
redis.call('UNLINK', lanes, waiting, free)
return 1

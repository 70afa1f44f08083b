-- Counts entries of a stream without sending them; also by the value of a field, if one is given.
--
-- KEYS[1]  the stream
-- ARGV[1]  XRANGE or XREVRANGE
-- ARGV[2]  the id to begin at, in that command's syntax
-- ARGV[3]  the id to end at
-- ARGV[4]  the most entries to count; each blocks the server for about 2 us
-- ARGV[5]  the field; "" for none. Its values are cut after 64 bytes
-- Returns  the number of entries, the id of the last ("" if there are none), then pairs of a value ("" for entries without
--          the field) and the number of entries that have it

local entries = redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local reply, at = {#entries, #entries > 0 and entries[#entries][1] or ''}, {}
if ARGV[5] ~= '' then
  for _, entry in ipairs(entries) do
    local fields, value = entry[2], ''
    for i = 1, #fields, 2 do
      if fields[i] == ARGV[5] then
        value = string.sub(fields[i + 1], 1, 64)
        break
      end
    end
    if not at[value] then
      at[value] = #reply + 2
      reply[at[value] - 1], reply[at[value]] = value, 0
    end
    reply[at[value]] = reply[at[value]] + 1
  end
end
return reply

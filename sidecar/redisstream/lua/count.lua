-- Counts entries of a stream without sending them, by the value of one field where that is asked for.
--
-- KEYS[1]  the stream
-- ARGV[1]  XRANGE or XREVRANGE
-- ARGV[2]  the id to begin at, as that command takes it
-- ARGV[3]  the id to end at
-- ARGV[4]  how many entries to look at, at most: the server does nothing else for about 2 us each
-- ARGV[5]  the field; "" for none. What is longer than 64 bytes of its value is cut
-- Returns  how many there were, the id of the last ("" for none), then each value ("" for none) and how many had it

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

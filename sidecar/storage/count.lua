-- Counts entries of a stream without sending them, by the value of one field where that is asked for.
--
-- KEYS[1]  the stream
-- ARGV[1]  the first id, as XRANGE takes it
-- ARGV[2]  how many entries to look at, at most: it keeps the server busy for about 2 us each
-- ARGV[3]  the field; "" for none
-- Returns  how many there were, the id of the last ("" for none), then each value and how many had it

local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local counts, values = {}, {}
if ARGV[3] ~= '' then
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == ARGV[3] then
        local value = fields[i + 1]
        if not counts[value] then
          counts[value] = 0
          values[#values + 1] = value
        end
        counts[value] = counts[value] + 1
      end
    end
  end
end
local reply = {#entries, #entries > 0 and entries[#entries][1] or ''}
for _, value in ipairs(values) do
  reply[#reply + 1] = value
  reply[#reply + 1] = counts[value]
end
return reply

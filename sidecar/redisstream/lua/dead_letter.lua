-- Appends dead letters to their stream, each at most once within the dedup window.
--
-- KEYS[1]    the stream of dead letters
-- KEYS[2..]  one dedup key a dead letter
-- ARGV[1]    dedup window, milliseconds
-- ARGV[2..]  for each dead letter: the number of its arguments, then its fields and values in XADD's syntax
-- Returns    the id of each dead letter's entry

local entries, at = {}, 2
for i = 2, #KEYS do
  local count = tonumber(ARGV[at])
  local entry = redis.call('GET', KEYS[i])
  if not entry or entry == '-' then
    redis.call('SET', KEYS[i], '-', 'PX', ARGV[1])
    local fields = {}
    for j = 1, count do
      fields[j] = ARGV[at + j]
    end
    entry = redis.call('XADD', KEYS[1], '*', unpack(fields))
  end
  redis.call('SET', KEYS[i], entry, 'PX', ARGV[1])
  entries[i - 1] = entry
  at = at + count + 1
end
return entries

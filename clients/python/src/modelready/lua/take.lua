-- Takes entries over that a consumer of the group has had in hand for too long.
--
-- KEYS[1]  the stream
-- ARGV     group, consumer that takes, least idle milliseconds, first id ("-", or "(<id>" for those after it), how many
--          at most, the consumer to take from ("" for any)
-- Returns  for each entry, in the stream's order: its id, its fields, how many times it was delivered before. That number
--          stays as it is, but 0 becomes 1, as with a new entry: nobody has begun it. Entries that were deleted have no
--          fields; they are acknowledged here, as nobody can handle them.

local stream, group, me, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local query = {'XPENDING', stream, group, 'IDLE', idle, ARGV[4], '+', ARGV[5]}
if ARGV[6] ~= '' then
  query[#query + 1] = ARGV[6]
end

local taken = {}
for _, pending in ipairs(redis.call(unpack(query))) do
  local id = pending[1]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    if pending[4] == 0 then
      redis.call('XCLAIM', stream, group, me, '0', id, 'RETRYCOUNT', 1, 'JUSTID')
    else
      redis.call('XCLAIM', stream, group, me, '0', id, 'JUSTID')
    end
    taken[#taken + 1] = {id, entry[2], pending[4]}
  else
    redis.call('XACK', stream, group, id)
    taken[#taken + 1] = {id, {}, pending[4]}
  end
end
return taken

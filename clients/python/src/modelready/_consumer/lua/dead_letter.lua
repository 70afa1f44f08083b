-- Turns an entry that is still pending with this consumer into a dead letter, and acknowledges it: both or neither.
--
-- KEYS[6]   the stream of dead letters
-- ARGV[3]   id
-- ARGV[4..] the fields and values that the dead letter has besides the entry's own
-- Returns   1, or 0 if the entry is no longer pending with this consumer: it is done, or another consumer has it

-- Lua passes at most about 8,000 arguments. Our entries have 11 fields; those of other programs may have thousands.
local MAX_FIELDS, MAX_OURS = 1000, 100
local OURS = {data = true, ['content-type'] = true, correlationid = true, traceparent = true, partitionkey = true}
local id = ARGV[3]
if not pending_with(me, id) then
  return 0
end
local entry = entry_at(id)
if entry then
  local fields, ours, others = {}, 0, 0
  for i = 1, #entry[2], 2 do
    local name = entry[2][i]
    local is_ours = OURS[name] or string.sub(name, 1, 3) == 'ce_'
    if name == 'replay_group' or string.sub(name, 1, 3) == 'dl_' then
      -- from an earlier dead letter of the event
    elseif (is_ours and ours < MAX_OURS) or (not is_ours and others < MAX_FIELDS) then
      ours, others = ours + (is_ours and 1 or 0), others + (is_ours and 0 or 1)
      fields[#fields + 1] = name
      fields[#fields + 1] = entry[2][i + 1]
    end
  end
  for i = 4, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  redis.call('XADD', KEYS[6], '*', unpack(fields))
end
redis.call('XACK', stream, group, id)
return 1

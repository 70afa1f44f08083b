-- Puts entries that are pending with a consumer back into the lanes, one page of them: when it leaves, after a lost reply, when
-- it died, or for the consumer of replays. A lane keeps its owner until nothing is pending with that owner (tidy.lua).
--
-- ARGV[3]   the consumer
-- ARGV[4]   "-", or "(<id>" to continue after an id
-- ARGV[5]   "+", or the last id
-- ARGV[6]   the most entries
-- ARGV[7]   the least time that an entry must have been idle, milliseconds
-- ARGV[8]   "1" if the consumer stays alive: an entry that it does not know, with one attempt counted, was then never begun
-- ARGV[9..] pairs of an id that the consumer knows and how many times it was begun; "" for an entry that it keeps
-- Returns   where to continue, "" at the end; how many entries were put back

local consumer, known, last, released = ARGV[3], {}, '', 0
for i = 9, #ARGV, 2 do
  known[ARGV[i]] = ARGV[i + 1]
end

write_though_memory_is_full()
local page = redis.call('XPENDING', stream, group, ARGV[4], ARGV[5], ARGV[6], consumer)
for _, pending in ipairs(page) do
  local id, attempts = pending[1], pending[4]
  if known[id] then
    attempts = known[id]
  elseif ARGV[8] == '1' and attempts == 1 then
    attempts = 0
  end
  if attempts ~= '' and pending[3] >= tonumber(ARGV[7]) then
    local entry = entry_at(id)
    if entry then
      local lane = lane_of(entry[2])
      wait_in(lane, id, attempts)
      if redis.call('HEXISTS', lanes, lane) == 0 then
        set_free(lane)
      end
    else
      redis.call('XACK', stream, group, id) -- it was deleted
    end
    released = released + 1
  end
end
if #page == tonumber(ARGV[6]) then
  last = '(' .. page[#page][1]
end
return {last, released}

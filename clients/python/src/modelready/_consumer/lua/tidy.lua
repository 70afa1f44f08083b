-- Looks whether the lanes in which something waits have an owner that has something pending, and sets the others free.
--
-- ARGV[3]  "", or where to go on
-- ARGV[4]  how many lanes at most
-- Returns  where to go on, "" at the end; the lanes of this consumer, which knows itself whether it has something of them in flight

local at, mine, pending = ARGV[3] == '' and '-' or '(' .. ARGV[3], {}, {}
write_though_memory_is_full()
for _ = 1, ARGV[4] do
  local member = redis.call('ZRANGEBYLEX', waiting, at, '+', 'LIMIT', 0, 1)[1]
  if not member then
    return {'', mine}
  end
  local lane = lane_of_member(member)
  local owner = redis.call('HGET', lanes, lane)
  if owner == me then
    mine[#mine + 1] = lane
  elseif not owner or owner == '' then
    set_free(lane)
  else
    if pending[owner] == nil then
      pending[owner] = #redis.call('XPENDING', stream, group, '-', '+', 1, owner) > 0
    end
    if not pending[owner] then
      set_free(lane)
    end
  end
  at = '(' .. prefix_of(lane) .. '\255'
end
return {string.sub(at, 2), mine}

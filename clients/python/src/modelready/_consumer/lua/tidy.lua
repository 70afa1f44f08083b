-- Frees lanes in which entries wait although nothing is pending with their owner.
--
-- ARGV[3]  "", or where to continue
-- ARGV[4]  the most lanes to check
-- Returns  where to continue, "" at the end; the lanes that this consumer owns: it knows itself what it has in flight

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

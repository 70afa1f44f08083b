-- Appends events to a stream, each at most once in the dedup window, and optionally mirrors them to a list.
--
-- KEYS[1]    the stream
-- KEYS[2]    the mirror list; the stream again where there is none
-- KEYS[3..]  one dedup key an event
-- ARGV[1]    dedup window, milliseconds
-- ARGV[2]    content type of the data
-- ARGV[3]    CloudEvents type of the data
-- ARGV[4]    arguments an event: 7, or 8 with a mirror
-- ARGV[5..]  for each event: ce_id, ce_source, ce_time, ce_subject, correlationid, traceparent ("" for none), data,
--            and with a mirror the list's message
-- Returns    for each event: the id of its entry; with a leading "=" where an earlier call appended it; or an error, which
--            begins with APPENDED where some are in the stream
--
-- A failing script does not roll back, so the order of the writes matters. The dedup key is written once before the
-- first XADD: where the rights or the memory do not allow that, nothing else has happened. "-" in it means: not yet
-- appended. An id with a trailing "!" means: appended, but the list still lacks it.
-- In the duplicate branch the expiry is refreshed. That is a write, without which a WAIT after this call would confirm
-- nothing on a fresh connection (Redis 7.2+, Valkey).

local stream, list = KEYS[1], KEYS[2]
local mirrored = list ~= stream
local window, content_type, event_type, width = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local entries, known_by, writable = {}, {}, false

-- A key of another type must fail before anything is written; with no events this is all that the call does.
redis.call('XLEN', stream)
if mirrored then
  redis.call('LLEN', list)
end
for i = 3, #KEYS do
  known_by[KEYS[i]] = redis.call('GET', KEYS[i])
end

for i = 1, #KEYS - 2 do
  local key, at = KEYS[i + 2], 5 + (i - 1) * width
  local known = known_by[key]
  local entry, owed = nil, mirrored
  if known and known ~= '-' then
    if string.sub(known, -1) == '!' then
      entry = string.sub(known, 1, -2)
    else
      entry, owed = known, false
    end
  end
  if entry and not (mirrored and owed) then
    redis.call('SET', key, entry, 'PX', window)
    entries[i] = '=' .. entry
  else
    local duplicate = entry
    if not entry then
      if not writable then
        redis.call('SET', key, '-', 'PX', window)
        writable = true
      end
      if ARGV[at + 5] == '' then
        entry = redis.call('XADD', stream, '*', 'ce_id', ARGV[at], 'ce_source', ARGV[at + 1], 'ce_type', event_type,
          'ce_specversion', '1.0', 'ce_time', ARGV[at + 2], 'ce_subject', ARGV[at + 3], 'correlationid', ARGV[at + 4],
          'content-type', content_type, 'data', ARGV[at + 6])
      else
        entry = redis.call('XADD', stream, '*', 'ce_id', ARGV[at], 'ce_source', ARGV[at + 1], 'ce_type', event_type,
          'ce_specversion', '1.0', 'ce_time', ARGV[at + 2], 'ce_subject', ARGV[at + 3], 'correlationid', ARGV[at + 4],
          'traceparent', ARGV[at + 5], 'content-type', content_type, 'data', ARGV[at + 6])
      end
    end
    if owed then
      local pushed = redis.pcall('LPUSH', list, ARGV[at + 7])
      if type(pushed) == 'table' and pushed.err then
        redis.call('SET', key, entry .. '!', 'PX', window)
        return redis.error_reply('APPENDED ' .. pushed.err)
      end
    end
    redis.call('SET', key, entry, 'PX', window)
    known_by[key] = entry
    entries[i] = (duplicate and '=' or '') .. entry
  end
end
return entries

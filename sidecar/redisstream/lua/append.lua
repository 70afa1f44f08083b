-- Appends events to a stream, each at most once within the dedup window, and mirrors them to any number of lists.
--
-- KEYS[1]    the stream
-- KEYS[2..]  the mirror lists, then one dedup key an event
-- ARGV[1]    dedup window, milliseconds
-- ARGV[2]    content type of the data
-- ARGV[3]    CloudEvents type of the data
-- ARGV[4]    the number of mirror lists
-- ARGV[5..]  for each event: ce_id, ce_source, ce_time, ce_subject, correlationid, partitionkey, traceparent ("" for none),
--            data, then its message for each list
-- Returns    for each event the id of its entry, after a "=" if an earlier call appended it; or one error, which begins
--            with APPENDED if some events are in the stream
--
-- A failing script does not roll back, so the order of the writes matters. The first dedup key is written before the
-- first XADD: if the user's rights or a full memory forbid that, nothing else has happened yet. A dedup key holds "-"
-- before its event is appended, then the id of the entry. "<id>!" means that the lists still lack the event, "<id>!2"
-- that the first two lists have it.
-- A duplicate's expiry is refreshed because that is a write: without one, a WAIT after this call would confirm nothing
-- on a new connection (Redis 7.2+, Valkey).

local stream = KEYS[1]
local window, content_type, event_type, lists = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local width = 8 + lists
local entries, known_by, writable = {}, {}, false

-- Pushes an event's messages to all lists but the first `pushed`. Returns how many lists have it, and an error.
local function mirror(messages, pushed)
  while pushed < lists do
    local reply = redis.pcall('LPUSH', KEYS[2 + pushed], ARGV[messages + pushed])
    if type(reply) == 'table' and reply.err then
      return pushed, reply
    end
    pushed = pushed + 1
  end
  return pushed
end

-- A key of another type must fail before anything is written. A call without events does only this check.
redis.call('XLEN', stream)
for i = 2, 1 + lists do
  redis.call('LLEN', KEYS[i])
end
for i = 2 + lists, #KEYS do
  known_by[KEYS[i]] = redis.call('GET', KEYS[i])
end

for i = 1, #KEYS - 1 - lists do
  local key, at = KEYS[1 + lists + i], 5 + (i - 1) * width
  local known = known_by[key]
  local entry, pushed = nil, 0
  if known and known ~= '-' then
    local unfinished, count = string.match(known, '^(.*)!(%d*)$')
    entry, pushed = unfinished or known, unfinished and (tonumber(count) or 0) or lists
  end
  if entry and pushed >= lists then
    redis.call('SET', key, entry, 'PX', window)
    entries[i] = '=' .. entry
  else
    local duplicate = entry
    if not entry then
      if not writable then
        redis.call('SET', key, '-', 'PX', window)
        writable = true
      end
      if ARGV[at + 6] == '' then
        entry = redis.call('XADD', stream, '*', 'ce_id', ARGV[at], 'ce_source', ARGV[at + 1], 'ce_type', event_type,
          'ce_specversion', '1.0', 'ce_time', ARGV[at + 2], 'ce_subject', ARGV[at + 3], 'correlationid', ARGV[at + 4],
          'partitionkey', ARGV[at + 5], 'content-type', content_type, 'data', ARGV[at + 7])
      else
        entry = redis.call('XADD', stream, '*', 'ce_id', ARGV[at], 'ce_source', ARGV[at + 1], 'ce_type', event_type,
          'ce_specversion', '1.0', 'ce_time', ARGV[at + 2], 'ce_subject', ARGV[at + 3], 'correlationid', ARGV[at + 4],
          'partitionkey', ARGV[at + 5], 'traceparent', ARGV[at + 6], 'content-type', content_type, 'data', ARGV[at + 7])
      end
    end
    local problem
    pushed, problem = mirror(at + 8, pushed)
    if problem then
      redis.call('SET', key, entry .. '!' .. (pushed > 0 and pushed or ''), 'PX', window)
      return redis.error_reply('APPENDED ' .. problem.err)
    end
    redis.call('SET', key, entry, 'PX', window)
    known_by[key] = entry
    entries[i] = (duplicate and '=' or '') .. entry
  end
end
return entries

-- Fixed windows. For each key two arguments: the window's seconds and the hits (negative: give back, 0: look).
-- For each key two answers: the count, and the seconds until the window ends.
local now = tonumber(redis.call('TIME')[1])
local answer = {}
for i, key in ipairs(KEYS) do
  local window, hits = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local ends = now - now % window + window
  local count
  if hits > 0 then
    count = redis.pcall('INCRBY', key, ARGV[2 * i])
    if type(count) == 'table' then
      -- Under our name stands something that is no counter: it is replaced, and fails nobody else's call.
      redis.call('DEL', key)
      count = redis.call('INCRBY', key, ARGV[2 * i])
    end
    if count == hits then redis.call('EXPIREAT', key, ends) end
  else
    count = redis.pcall('GET', key) or '0'
    count = type(count) == 'string' and tonumber(count) or 0
    if hits < 0 and count > 0 then
      if count + hits > 0 then count = redis.call('INCRBY', key, ARGV[2 * i])
      else redis.call('DEL', key) count = 0 end
    end
  end
  answer[2 * i - 1] = count
  answer[2 * i] = ends - now
end
return answer

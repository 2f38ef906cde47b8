-- Fixed windows. Arguments come in threes: a window's seconds, hits (negative: give back, 0: look), and for how many
-- keys in a row these hold. The answer is one string, since clients read that faster than an array: the server's
-- second, then the count of each key.
local now = tonumber(redis.call('TIME')[1])
local pcall, answer, last = redis.pcall, { now }, 0
for a = 1, #ARGV, 3 do
  local window, asked, hits = tonumber(ARGV[a]), ARGV[a + 1], tonumber(ARGV[a + 1])
  local ends, first = now - now % window + window, last + 1
  last = last + tonumber(ARGV[a + 2])
  for i = first, last do
    local key = KEYS[i]
    local count
    if hits > 0 then
      count = pcall('INCRBY', key, asked)
      if type(count) == 'table' then
        -- Under our name stands something that is no counter: it is replaced, and fails nobody else's call.
        redis.call('DEL', key)
        count = redis.call('INCRBY', key, asked)
      end
      if count == hits then redis.call('EXPIREAT', key, ends) end
    else
      count = pcall('GET', key) or '0'
      count = type(count) == 'string' and tonumber(count) or 0
      if hits < 0 and count > 0 then
        if count + hits > 0 then count = redis.call('INCRBY', key, asked)
        else redis.call('DEL', key) count = 0 end
      end
    end
    answer[i + 1] = count
  end
end
return cmsgpack.pack(answer)

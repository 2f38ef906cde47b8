-- Calls whose counters are spent together or not at all; several calls, one after the other.
--
-- For each call the number of its counters, then for each counter six arguments: kind (f fixed window, s sliding
-- window, b bucket), role (e enforced, q quota, w watched only), the window's seconds, requests, capacity, hits
-- (negative: give back, 0: look). The answer is one string that holds for each counter three numbers: hits used, 1 if
-- these did not fit, seconds.
--
-- The arithmetic is that of src/bucket.rs and src/sliding.rs, operation by operation.
local EXACT_UP_TO, SLOTS, TOLERANCE, SLACK = 64, 64, 60000000, 1e-6
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + tonumber(time[2])

local function steady(last)
  if last > now_us and last - now_us <= TOLERANCE then return last end
  return now_us
end

-- What stands under our name and is no counter of the kind is as nothing, and is replaced: it fails nobody's call.
local function stored(key)
  local raw = redis.pcall('GET', key)
  return type(raw) == 'string' and raw or nil
end
local function unpacked(key)
  local raw = stored(key)
  if not raw then return nil end
  local good, first, second = pcall(cmsgpack.unpack, raw)
  if good then return first, second end
end

local fixed = {}
function fixed.apply(c)
  local ends = now_s - now_s % c.window + c.window
  if c.hits > 0 then
    c.used = redis.pcall('INCRBY', c.key, c.hits)
    if type(c.used) == 'table' then
      redis.call('DEL', c.key)
      c.used = redis.call('INCRBY', c.key, c.hits)
    end
    if c.used == c.hits then redis.call('EXPIREAT', c.key, ends) end
  else
    c.used = tonumber(stored(c.key) or '0') or 0
    if c.hits < 0 and c.used > 0 then
      if c.used + c.hits > 0 then c.used = redis.call('INCRBY', c.key, c.hits)
      else redis.call('DEL', c.key) c.used = 0 end
    end
  end
  c.wait, c.empty = (ends - now_s) * 1000000, (ends - now_s) * 1000000
  return c.hits >= 0 and c.used > c.requests
end
function fixed.undo() end
function fixed.tally() end

local bucket = {}
function bucket.load(key)
  local hits, at = unpacked(key)
  if type(hits) ~= 'number' or type(at) ~= 'number' then hits, at = 0, 0 end
  return { hits = hits, at = at }
end
function bucket.apply(c)
  local s = c.state
  local at = steady(s.at)
  local back = math.max(at - s.at, 0) * c.requests / c.window_us
  s.hits, s.at = math.max(s.hits - back, 0), at
  if c.hits < 0 then s.hits = math.max(s.hits + c.hits, 0) return false end
  if s.hits + math.max(c.hits, 1) > c.capacity + SLACK then return true end
  c.before, s.hits = s.hits, s.hits + c.hits
  return false
end
function bucket.undo(c) if c.before then c.state.hits = c.before end end
local function until_back(c, hits)
  if c.requests > 0 then return math.ceil(math.max(hits, 0) * c.window_us / c.requests) end
  return c.window_us
end
function bucket.tally(c)
  local s, asked = c.state, c.hits > 0 and c.hits or 1
  c.used = math.max(math.ceil(s.hits - SLACK), 0)
  c.empty = until_back(c, s.hits)
  c.wait = asked > c.capacity and c.empty or until_back(c, s.hits + asked - c.capacity)
end
function bucket.save(c) return c.state.hits > 0 and cmsgpack.pack(c.state.hits, c.state.at) end

-- A log is { seen, moment, hits, moment, hits, ... }, oldest first; `first` is where it begins.
local sliding = {}
function sliding.load(key)
  local log = unpacked(key)
  if type(log) ~= 'table' or type(log[1]) ~= 'number' then log = { 0 } end
  local used = 0
  for i = 3, #log, 2 do used = used + log[i] end
  return { log = log, first = 2, used = used }
end
function sliding.apply(c)
  local s, log = c.state, c.state.log
  local slot = c.requests <= EXACT_UP_TO and 1 or math.ceil(c.window_us / SLOTS)
  local now = steady(log[1])
  log[1] = now
  local latest = math.ceil(now / slot) * slot
  for i = #log - 1, s.first, -2 do
    if log[i] <= latest then break end
    log[i] = latest
  end
  while s.first < #log and log[s.first] + c.window_us <= now do
    s.used = s.used - log[s.first + 1]
    s.first = s.first + 2
  end
  if c.hits < 0 then sliding.take_back(s, -c.hits) return false end
  if c.hits == 0 then return s.used >= c.requests end
  if s.used + c.hits > c.requests then return true end
  local n = #log
  if n > s.first and log[n - 1] >= latest then log[n] = log[n] + c.hits
  else log[n + 1], log[n + 2] = latest, c.hits end
  s.used, c.taken = s.used + c.hits, c.hits
  return false
end
function sliding.take_back(s, hits)
  local log = s.log
  while hits > 0 and #log > s.first do
    local n = #log
    local gone = math.min(hits, log[n])
    log[n], s.used, hits = log[n] - gone, s.used - gone, hits - gone
    if log[n] == 0 then log[n], log[n - 1] = nil, nil end
  end
end
function sliding.undo(c) if c.taken then sliding.take_back(c.state, c.taken) end end
function sliding.tally(c)
  local s, log, asked = c.state, c.state.log, c.hits > 0 and c.hits or 1
  c.used, c.wait = s.used, 0
  c.empty = #log > s.first and math.max(log[#log - 1] + c.window_us - log[1], 0) or 0
  if asked > c.requests then c.wait = c.empty return end
  local used = s.used
  for i = s.first, #log - 1, 2 do
    if used + asked <= c.requests then return end
    used = used - log[i + 1]
    if used + asked <= c.requests then c.wait = math.max(log[i] + c.window_us - log[1], 0) return end
  end
end
function sliding.save(c)
  local s = c.state
  if s.used == 0 then return false end
  local kept = { s.log[1] }
  for i = s.first, #s.log do kept[#kept + 1] = s.log[i] end
  return cmsgpack.pack(kept)
end

local kinds = { f = fixed, s = sliding, b = bucket }
local states, answer, a, k = {}, {}, 1, 0
while a <= #ARGV do
  local call, enforced_over, quotas, quotas_over = {}, false, 0, 0
  local n = tonumber(ARGV[a])
  a = a + 1
  for i = 1, n do
    k = k + 1
    local c = {
      key = KEYS[k], kind = kinds[ARGV[a]], window = tonumber(ARGV[a + 2]), requests = tonumber(ARGV[a + 3]),
      capacity = tonumber(ARGV[a + 4]), hits = tonumber(ARGV[a + 5]),
    }
    c.window_us = c.window * 1000000
    if c.kind.load then
      if not states[c.key] then states[c.key] = { state = c.kind.load(c.key) } end
      c.state = states[c.key].state
      states[c.key].last = c
    end
    c.over = c.kind.apply(c)
    if ARGV[a + 1] == 'e' then enforced_over = enforced_over or c.over
    elseif ARGV[a + 1] == 'q' then
      quotas = quotas + 1
      if c.over then quotas_over = quotas_over + 1 end
    end
    a = a + 6
    call[i] = c
  end
  if enforced_over or (quotas > 0 and quotas == quotas_over) then
    for i = n, 1, -1 do call[i].kind.undo(call[i]) end
  end
  for i = 1, n do
    local c = call[i]
    c.kind.tally(c)
    answer[#answer + 1] = c.used
    answer[#answer + 1] = c.over and 1 or 0
    answer[#answer + 1] = math.ceil((c.over and c.wait or c.empty) / 1000000)
  end
end
for key, held in pairs(states) do
  local c = held.last
  c.kind.tally(c)
  local raw = c.kind.save(c)
  -- A second longer than needed, so that nothing ends early by rounding.
  if raw then redis.call('SET', key, raw, 'PX', math.ceil(c.empty / 1000) + 1000)
  else redis.call('DEL', key) end
end
return cmsgpack.pack(answer)

-- Tables, strings, closures, coroutines, objects and errors, in about equal parts.
local size = tonumber((...))
local sum = 0

local function mix(value)
  sum = (sum * 31 + value) % 2147483647
end

local function primes(limit)
  local composite, count = {}, 0
  for i = 2, limit do
    if not composite[i] then
      count = count + 1
      for j = i * i, limit, i do composite[j] = true end
    end
  end
  return count
end

local function words(count)
  local state, text = 1, {}
  for i = 1, count do
    state = (state * 1103515245 + 12345) % 2147483648
    text[i] = string.format("%x", state // 65536)
  end
  local joined, seen = table.concat(text, " "), {}
  for word in joined:gmatch("%S+") do
    local start = word:sub(1, 2):upper()
    seen[start] = (seen[start] or 0) + 1
  end
  local starts = {}
  for start in pairs(seen) do starts[#starts + 1] = start end
  table.sort(starts, function(a, b)
    if seen[a] ~= seen[b] then return seen[a] > seen[b] end
    return a < b
  end)
  return starts, #joined:gsub("%d+", "#")
end

local function permutations(items, n)
  n = n or #items
  if n <= 1 then coroutine.yield(items) end
  for i = 1, n do
    items[i], items[n] = items[n], items[i]
    permutations(items, n - 1)
    items[i], items[n] = items[n], items[i]
  end
end

local Account = {}
Account.__index = Account

function Account.new(balance) return setmetatable({ balance = balance }, Account) end

function Account:draw(amount)
  if amount > self.balance then error({ missing = amount - self.balance }) end
  self.balance = self.balance - amount
end

local function bank(turns)
  local account, refused = Account.new(turns), 0
  for turn = 1, turns do
    local done, problem = pcall(account.draw, account, turn % 100)
    if not done then
      refused = refused + problem.missing
      account.balance = account.balance + 50
    end
  end
  return refused
end

local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end

for round = 1, size do
  mix(primes(60000))
  local starts, length = words(12000)
  mix(length)
  for i = 1, 5 do mix(starts[i]:byte()) end
  for items in coroutine.wrap(function() permutations({ 1, 2, 3, 4, 5, 6, 7 }) end) do mix(items[1]) end
  mix(bank(20000 + round))
  mix(fib(21))
end
print(sum)

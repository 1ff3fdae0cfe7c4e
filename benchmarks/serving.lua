-- Repeat one request, compare each response without its spaces, and print one line of JSON.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

local function content(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  wrong = 0
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[1]
  wrk.body = content(args[2])
  wanted = content(args[3])
end

function response(status, headers, body)
  if status ~= 200 or (body ~= wanted and body:gsub("%s", "") ~= wanted) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local all = 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("wrong")
  end
  local errors = summary.errors
  all = all + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\n{"rate": %.3f, "p50": %.6f, "p99": %.6f, "wrong": %d}\n',
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e6,
    latency:percentile(99) / 1e6,
    all
  ))
end

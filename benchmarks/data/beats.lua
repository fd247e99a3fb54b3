-- wrk's part of heartbeats: the requests of a file, a line each, every thread its own share of them, over and over.
-- A line is a path, a tabulator and a body.
local threads = 0

function setup(thread)
  thread:set("share", threads)
  threads = threads + 1
end

local requests, turn = {}, 0

function init()
  local shares = tonumber(os.getenv("BEATS_THREADS"))
  local headers = { ["content-type"] = "application/json" }
  local token = os.getenv("BENCH_TOKEN")
  if token then
    headers["authorization"] = "Bearer " .. token
  end
  local number = 0
  for line in io.lines(os.getenv("BEATS_FILE")) do
    if number % shares == share then
      local path, body = line:match("^([^\t]+)\t(.*)$")
      requests[#requests + 1] = wrk.format(os.getenv("BEATS_METHOD"), path, headers, body)
    end
    number = number + 1
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end

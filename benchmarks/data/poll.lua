-- wrk's part of a poll: one body, posted again and again. wrk builds the request once where none of it varies.
local file = assert(io.open(os.getenv("POLL_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
wrk.headers["x-envoy-internal"] = "true"
wrk.headers["x-forwarded-for"] = "127.0.0.1"
wrk.headers["x-envoy-expected-rq-timeout-ms"] = os.getenv("POLL_BUDGET")
local token = os.getenv("BENCH_TOKEN")
if token then
  wrk.headers["authorization"] = "Bearer " .. token
end

-- A client that brings the same version again and again has refused what it was sent, and is not sent it again. So the
-- polls of a flood that is to be answered bring one version after the other: the figures behind the one in the body.
local versions = tonumber(os.getenv("POLL_VERSIONS"))
if versions > 0 then
  -- Each thread has versions of its own: in step with one another they would bring each twice in a row.
  local threads, requests, sent = 0, {}, 0
  function setup(thread)
    thread:set("offset", threads * versions)
    threads = threads + 1
  end

  function init()
    for number = 1, versions do
      local body = wrk.body:gsub("bench:1", string.format("bench:%d", offset + number), 1)
      requests[number] = wrk.format(nil, nil, nil, body)
    end
  end

  function request()
    sent = sent % versions + 1
    return requests[sent]
  end
end

-- With a pause each connection is an Envoy that waits between two polls; without one it is a flood.
local pause = tonumber(os.getenv("POLL_PAUSE"))
if pause > 0 then
  function delay()
    return math.random(0, 2 * pause)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p90": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(90),
    latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end

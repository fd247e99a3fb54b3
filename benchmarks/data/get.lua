-- wrk's part of a list: the same GET again and again, of a client that may hold it already and may take gzip.
wrk.method = "GET"
wrk.headers["user-agent"] = "curl/8"
local held = os.getenv("GET_ETAG")
if held then
  wrk.headers["if-none-match"] = held
end
local coding = os.getenv("GET_CODING")
if coding then
  wrk.headers["accept-encoding"] = coding
end
local accept = os.getenv("GET_ACCEPT")
if accept then
  wrk.headers["accept"] = accept
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

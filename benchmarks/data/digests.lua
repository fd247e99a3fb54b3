-- wrk's part of digests of traffic: those of a file, a line each, one after the other at a fixed rate, with a new number
-- each time. Every connection waits the same pause before each request.
local bodies, turn = {}, 0
local headers = { ["content-type"] = "application/json" }
local sequence = tonumber(os.getenv("DIGESTS_SEQUENCE"))
local pause = tonumber(os.getenv("DIGESTS_PAUSE"))

function init()
  for line in io.lines(os.getenv("DIGESTS_FILE")) do
    bodies[#bodies + 1] = line
  end
end

function delay()
  return pause
end

function request()
  turn = turn % #bodies + 1
  sequence = sequence + 1
  local body = bodies[turn]:gsub('"sequence":7', string.format('"sequence":%d', sequence), 1)
  return wrk.format("POST", "/v1/traffic", headers, body)
end

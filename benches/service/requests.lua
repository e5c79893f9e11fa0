-- What wrk sends: prebuilt requests from a file, each thread its own share of them, over and over.
-- They are read as they are sent and not in init: the first thread runs while the second one's init does, and its
-- requests would count while the clock stands still.

local path = os.getenv("BENCH_REQUESTS")
local bytes = tonumber(os.getenv("BENCH_REQUEST_BYTES"))
local count = tonumber(os.getenv("BENCH_REQUEST_COUNT"))
local threads = tonumber(os.getenv("BENCH_THREADS"))

local ready = 0
local file, first, last, position

-- Runs in the state of the main thread, once for each thread.
function setup(thread)
   thread:set("share", ready)
   ready = ready + 1
end

function init()
   file = assert(io.open(path, "rb"))
   file:setvbuf("full", 65536)
   first = math.floor(count * share / threads)
   last = math.floor(count * (share + 1) / threads)
   position = last
end

function request()
   if position == last then
      file:seek("set", first * bytes)
      position = first
   end
   position = position + 1
   return file:read(bytes)
end

-- Times in microseconds. A status of 400 or more is an error.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      "bench requests=%d duration=%d p50=%d p99=%d max=%d connect=%d read=%d write=%d timeout=%d status=%d\n",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end

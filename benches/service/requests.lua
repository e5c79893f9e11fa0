-- Sends prebuilt requests from a file: each thread repeats its own share of them.
-- They are read before the first is sent. They are few, so reading takes a hundredth of a load: wrk starts its threads one
-- after the other and its clock after the last, so a long init would count for the first thread.

local path = os.getenv("BENCH_REQUESTS")
local bytes = tonumber(os.getenv("BENCH_REQUEST_BYTES"))
local count = tonumber(os.getenv("BENCH_REQUEST_COUNT"))
local threads = tonumber(os.getenv("BENCH_THREADS"))

local ready = 0
local requests, position = {}, 0

-- Runs in the state of the main thread, once for each thread.
function setup(thread)
   thread:set("share", ready)
   ready = ready + 1
end

function init()
   local file = assert(io.open(path, "rb"))
   local first = math.floor(count * share / threads)
   local last = math.floor(count * (share + 1) / threads)
   file:seek("set", first * bytes)
   for number = 1, last - first do
      requests[number] = file:read(bytes)
   end
   file:close()
end

function request()
   position = position % #requests + 1
   return requests[position]
end

-- Times in microseconds. A status of 400 or more is an error.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      "bench requests=%d duration=%d p50=%d p99=%d max=%d connect=%d read=%d write=%d timeout=%d status=%d\n",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end

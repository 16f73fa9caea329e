-- wrk ... -s browser.lua URL -- TEMPLATE TARGET CONNECTION
--
-- Sends the head in the file TEMPLATE. Where that has <id>, each request gets ids of its own: no cache of the server's
-- can have seen the line.

local function read(name)
   local file = assert(io.open(name, "r"))
   local text = file:read("*a")
   file:close()
   return text
end

local function id()
   return string.format("%08x%08x", math.random(0, 0x7fffffff), math.random(0, 0x7fffffff))
end

function init(args)
   local fill = { target = args[2], connection = args[3] }
   local head = read(args[1]):gsub("<(%a+)>", fill):gsub("\n", "\r\n") .. "\r\n"

   -- The text between the ids, in pieces: what is left to do for each request is a join.
   local pieces, ids, from = {}, {}, 1
   while true do
      local first, last = head:find("<id>", from, true)
      pieces[#pieces + 1] = head:sub(from, first and first - 1)
      if not first then break end
      ids[#ids + 1] = #pieces + 1
      pieces[#pieces + 1] = ""
      from = last + 1
   end

   if #ids == 0 then
      function request() return head end
      return
   end
   math.randomseed(os.time())
   function request()
      for _, place in ipairs(ids) do pieces[place] = id() end
      return table.concat(pieces)
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, ' ..
      '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end

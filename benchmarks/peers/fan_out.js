// Node's raw `http`: node fan_out.js PORT. `/events` subscribes, `/publish?count=N&gap=SECONDS` sends to all.
"use strict";
const http = require("node:http");

const streams = new Set();
let number = 0;

function publish(left, gap, done) {
  if (left === 0) return done();
  number += 1;
  const event = `id: ${number}\ndata: ${number} ${process.hrtime.bigint()}\n\n`;
  for (const stream of streams) stream.write(event);
  setTimeout(publish, gap * 1000, left - 1, gap, done);
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/events") {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    response.write(":\n\n");
    streams.add(response);
    response.on("close", () => streams.delete(response));
    return;
  }
  const page = () => response.writeHead(200, { "Content-Length": 3, "Connection": "close" }).end("ok\n");
  if (url.pathname === "/publish") {
    publish(Number(url.searchParams.get("count")), Number(url.searchParams.get("gap")), page);
  } else {
    page();
  }
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 2048 });
setTimeout(() => process.exit(), 180000).unref(); // it stops by itself

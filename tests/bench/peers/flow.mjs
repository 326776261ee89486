// `POST /flow` as in flow.py: benchmark messages at a steady rate.

import http from "node:http";
import { createRequire } from "node:module";

// The packages are in build/peers, where `npm install` put them.
export const require = createRequire(new URL("../../../build/peers/", import.meta.url));

const LEAD_MS = 200; // so that who asked for the flow can get back to receiving
const TIMER_NS = 2e6; // timers have whole milliseconds

// The clock of Python's time.monotonic_ns(); a double holds its nanoseconds for 104 days of uptime.
const now = () => Number(process.hrtime.bigint());

export function message(n, t, size) {
  const pad = size - JSON.stringify({ n, t, pad: "" }).length;
  return { n, t, pad: "x".repeat(Math.max(0, pad)) };
}

// When the message was due where the server was too busy to send it then: else one that falls
// behind would look fast by sending late.
function stamp(due) {
  const time = now();
  return time - due > TIMER_NS ? Math.round(due) : time;
}

function run(send, room, begin, step, count, size) {
  let k = 0;
  const next = () => {
    const due = begin + k * step;
    const wait = due - now();
    if (wait > 0) {
      setTimeout(next, Math.ceil(wait / 1e6));
      return;
    }
    send(room, ++k, stamp(due), size);
    if (k < count) setImmediate(next);
  };
  next();
}

// An HTTP server with the endpoint; `send(room, n, t, size)` sends to all in the room.
export function flowServer(send) {
  return http.createServer((request, response) => {
    const url = new URL(request.url, "http://peer");
    if (request.method !== "POST" || url.pathname !== "/flow") {
      response.writeHead(404).end();
      return;
    }
    const asked = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
    const [rate, seconds, rooms, size] = [asked("rate", 10), asked("seconds", 5), asked("rooms", 1), asked("bytes", 200)];
    const [step, count] = [1e9 / rate, Math.round(rate * seconds)];
    const begin = now() + LEAD_MS * 1e6;
    for (let room = 0; room < rooms; room++) run(send, room, begin + (room * step) / rooms, step, count, size);
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ messages: count }));
  });
}

export function listen(server) {
  server.listen({ port: 0, host: "127.0.0.1", backlog: 2048 }, () =>
    console.log(JSON.stringify({ port: server.address().port, pid: process.pid })),
  );
}

// The library `ws`, as its own documentation broadcasts.

import { flowServer, listen, message, require } from "./flow.mjs";

const { WebSocketServer } = require("ws");
const rooms = new Map();

function send(room, n, t, size) {
  const text = JSON.stringify(message(n, t, size));
  for (const socket of rooms.get(room) ?? []) if (socket.readyState === socket.OPEN) socket.send(text);
}

const http = flowServer(send);
new WebSocketServer({ server: http, path: "/ws" }).on("connection", (socket, request) => {
  const room = Number(new URL(request.url, "http://peer").searchParams.get("room") ?? 0);
  if (!rooms.has(room)) rooms.set(room, new Set());
  rooms.get(room).add(socket);
  socket.on("close", () => rooms.get(room).delete(socket));
  socket.on("error", () => socket.terminate());
  socket.send('{"type":"subscribed"}');
});
listen(http);

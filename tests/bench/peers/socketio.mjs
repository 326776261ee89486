// Rooms of Socket.IO.

import { flowServer, listen, message, require } from "./flow.mjs";

const { Server } = require("socket.io");
const http = flowServer((room, n, t, size) => io.to(`${room}`).emit("m", message(n, t, size)));
const io = new Server(http, { transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.join(`${socket.handshake.query.room ?? 0}`);
  socket.on("subscribe", () => socket.emit("subscribed"));
});
listen(http);

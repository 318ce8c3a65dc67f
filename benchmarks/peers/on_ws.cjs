// The room and the echo on node's ws, as its documentation recommends: a loop over the clients, no compression,
// bufferutil. Event streams are node's own responses, written to in a loop.
const http = require("node:http");
const { WebSocket, WebSocketServer } = require("ws");

const room = new Set();
const streams = new Set();

function broadcast(text) {
  for (const stream of streams) stream.write(`data: ${text}\n\n`);
  for (const client of room) if (client.readyState === WebSocket.OPEN) client.send(text);
}

const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.flushHeaders();
  streams.add(response);
  request.on("close", () => streams.delete(response));
});

new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (client, request) => {
  client.on("error", () => client.terminate());
  if (request.url === "/ws") {
    client.on("message", (data, binary) => client.send(binary ? data : `Echo: ${data}`));
    return;
  }
  let name;
  client.on("message", (data) => {
    if (name !== undefined) return broadcast(`${name}: ${data}`);
    name = data.toString();
    room.add(client);
    broadcast(`${name} joined the chat`);
  });
  client.on("close", () => {
    if (room.delete(client)) broadcast(`${name} left the chat`);
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1");

// A WebSocket client for the tests: JSON lines in, JSON lines out.
//   node ws.cjs ws://localhost:8080/ws
// in:  {"text": "hi"}  {"hex": "00ff"}  {"close": 1000}
// out: {"open": true}, and the extensions if there are any
//      {"text": "hi"}  {"hex": "00ff"}  {"close": 1000, "reason": ""}  {"error": "..."}

const readline = require("readline");
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2]);
const print = (object) => console.log(JSON.stringify(object));

socket.on("open", () => {
  print({ open: true, ...(socket.extensions && { extensions: socket.extensions }) });
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const command = JSON.parse(line);
    if ("text" in command) socket.send(command.text);
    else if ("hex" in command) socket.send(Buffer.from(command.hex, "hex"));
    else socket.close(command.close);
  });
});
socket.on("message", (data, binary) => print(binary ? { hex: data.toString("hex") } : { text: data.toString() }));
socket.on("error", (error) => print({ error: error.message }));
socket.on("close", (code, reason) => {
  print({ close: code, reason: reason.toString() });
  process.exit();
});

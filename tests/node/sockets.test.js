// Speech through the gate with ws.
import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import WebSocket from "ws";
import { LLAMA, gate } from "./gate.js";

const url = gate.replace("http", "ws");
const NOVA = "@cf/deepgram/nova-3";
const PCM = "encoding=linear16&sample_rate=16000";
const headers = { Authorization: "Bearer any" };

test("a call is heard to its end", async () => {
  const socket = new WebSocket(`${url}/client/v4/accounts/acc/ai/run/${NOVA}?${PCM}`, { headers });
  const messages = [];
  socket.on("message", (data, isBinary) => messages.push(isBinary ? data : JSON.parse(data)));
  await once(socket, "open");
  for (let n = 0; n < 50; n += 1) socket.send(Buffer.alloc(640));
  socket.ping("are you there?");
  const [pong] = await once(socket, "pong");
  assert.equal(String(pong), "are you there?");
  socket.send(JSON.stringify({ type: "CloseStream" }));
  const [code] = await once(socket, "close");
  assert.equal(code, 1000);
  assert.deepEqual([messages.at(-1).type, messages.at(-1).duration], ["Metadata", 1]);
});

test("a token comes as a subprotocol", async () => {
  const socket = new WebSocket(`${url}/v1/acc/gw/workers-ai?model=${NOVA}&${PCM}`, ["cf-aig-authorization.any"]);
  await once(socket, "open");
  assert.equal(socket.protocol, "cf-aig-authorization.any");
  socket.close(4000, "that is all");
  const [code] = await once(socket, "close");
  assert.equal(code, 4000);
});

test("what is refused is an ordinary reply", async () => {
  const socket = new WebSocket(`${url}/run/${LLAMA}`, { headers });
  socket.on("error", () => {});
  const [, reply] = await once(socket, "unexpected-response");
  assert.equal(reply.statusCode, 400);
  const { socket: connection } = reply;
  const { success, errors } = JSON.parse((await reply.toArray()).join(""));
  assert.equal(success, false);
  assert.match(errors[0].message, /has no WebSocket/);
  // Kept alive, it would keep the process, too.
  connection.destroy();
});

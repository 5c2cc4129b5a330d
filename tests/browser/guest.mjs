// A page that is invited by [cors] origins. Arguments: the proxy's URL, a model, the port that its origin names, the browser.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const [proxy, model, port, executablePath] = process.argv.slice(2);
const server = createServer((_, reply) => reply.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>"));
await new Promise((done) => server.listen(Number(port), "127.0.0.1", done));
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await (await browser.newContext()).newPage();
await page.goto(`http://localhost:${port}`);
const told = await page.evaluate(async ([url, model]) => {
  const reply = await fetch(`${url}/run/${model}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer t", "cf-aig-metadata": "{}" },
    body: JSON.stringify({ prompt: "x" }),
  });
  const failed = await fetch(`${url}/nowhere`);
  return [reply.status, reply.headers.get("cf-aig-log-id")?.length, (await reply.json()).success, failed.status];
}, [proxy, model]);
assert.deepEqual(told, [200, 32, true, 404]);
const heard = await page.evaluate((url) => new Promise((done) => {
  const query = "model=@cf/deepgram/nova-3&encoding=linear16&sample_rate=16000";
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/acc/gw/workers-ai?${query}`, ["cf-aig-authorization.t"]);
  let last;
  socket.onopen = () => {
    for (let n = 0; n < 50; n += 1) socket.send(new Uint8Array(640));
    socket.send(JSON.stringify({ type: "CloseStream" }));
  };
  socket.onmessage = ({ data }) => { last = JSON.parse(data); };
  socket.onclose = ({ code }) => done([code, socket.protocol, last?.duration]);
}), proxy);
assert.deepEqual(heard, [1000, "cf-aig-authorization.t", 1]);
await browser.close();
server.close();
console.log("done");
process.exit(0);

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
await browser.close();
server.close();
console.log("done");
process.exit(0);

// A page of somebody else's in a real browser, against both ports. Arguments: the proxy's URL, the admin port's URL, a model, the
// browser. Whoever started it looks at what came through.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const [proxy, admin, model, executablePath] = process.argv.slice(2);
const page = (_, reply) => reply.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>a page</title>");
const server = createServer(page).listen(0, "127.0.0.1");
await new Promise((done) => server.once("listening", done));
const elsewhere = `http://localhost:${server.address().port}`;
const ports = [proxy, admin].map((url) => new URL(url).port);

// evil.example is this machine, as a name server of its owner could say from one moment to the next.
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1", "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"],
});
const open = async (url) => {
  const page = await (await browser.newContext()).newPage();
  const reply = await page.goto(url);
  return [page, reply];
};

// What a page of another port can try, by both names of this machine.
const [stranger] = await open(elsewhere);
const ask = `{"model":"${model}","prompt":"x","messages":[{"role":"user","content":"x"}]}`;
const paths = [`/run/${model}`, "/v1/chat/completions", "/client/v4/accounts/acc/ai/models/search", "/metrics", "/logs", "/cache", "/"];
for (const host of ["127.0.0.1", "localhost"]) {
  for (const [n, port] of ports.entries()) {
    for (const path of paths) {
      const url = `http://${host}:${port}${path}`;
      const read = await stranger.evaluate(async ([url, body]) => {
        const tries = [
          { method: "POST", body, headers: { "content-type": "text/plain" } },
          { method: "POST", body, headers: { "content-type": "application/json", authorization: "Bearer t" } },
          { method: "POST", body, mode: "no-cors" },
          { method: "GET" },
          { method: "GET", mode: "no-cors" },
          { method: "DELETE" },
        ];
        const read = [];
        for (const init of tries) {
          // Whether the browser or the gate says no, the page reads nothing.
          const text = await fetch(url, init).then((reply) => reply.text(), () => "");
          if (text !== "") read.push([init.method, init.mode, text]);
        }
        return read;
      }, [url, ask]);
      assert.deepEqual(read, [], url);
    }
    const opened = await stranger.evaluate(async ([url, name, body]) => {
      const frame = Object.assign(document.createElement("iframe"), { name });
      const form = Object.assign(document.createElement("form"), { method: "post", action: url, enctype: "text/plain", target: name });
      // {"x":"=", …}: a form can write JSON.
      form.append(Object.assign(document.createElement("input"), { name: `${body.slice(0, -1)},"x":"`, value: `"}` }));
      document.body.append(frame, form);
      form.submit();
      await new Promise((done) => frame.addEventListener("load", done));
      for (const node of [Object.assign(new Image(), { src: url }), Object.assign(document.createElement("script"), { src: url })]) {
        document.body.append(node);
        await new Promise((done) => { node.onload = node.onerror = done; });
      }
      navigator.sendBeacon(url, body);
      const opens = (address, protocols) => new Promise((done) => {
        const socket = new WebSocket(address, protocols);
        socket.onopen = () => done(true);
        socket.onerror = () => done(false);
      });
      const speech = "@cf/deepgram/nova-3";
      const root = new URL("/", url).href.replace("http", "ws");
      const sockets = [
        [url.replace("http", "ws")],
        [`${root}run/${speech}`],
        [`${root}run/${speech}`, ["cf-aig-authorization.t"]],
        [`${root}v1/acc/gw/workers-ai?model=${speech}`, ["cf-aig-authorization.t"]],
        [`${root}v1/acc/gw`, ["cf-aig-authorization.t"]],
      ];
      const opened = [];
      for (const [address, protocols] of sockets) if (await opens(address, protocols ?? [])) opened.push(address);
      return opened;
    }, [`http://${host}:${port}/run/${model}`, `frame ${host} ${n}`, ask]);
    assert.deepEqual(opened, [], "a WebSocket opened");
  }
}

// A page whose own name was made to point here: to the browser, both ports are its own.
for (const port of ports) {
  const [rebound, reply] = await open(`http://evil.example:${port}/metrics`);
  assert.ok([403, 421].includes(reply.status()), `evil.example:${port} was answered with ${reply.status()}`);
  const statuses = await rebound.evaluate(async ([paths, body]) => {
    const told = [];
    for (const path of paths) {
      for (const init of [{ method: "GET" }, { method: "POST", body }, { method: "DELETE" }]) {
        told.push((await fetch(path, init)).status);
      }
    }
    return told;
  }, [paths, ask]);
  assert.ok(statuses.every((status) => [403, 421].includes(status)), `evil.example:${port}: ${statuses}`);
}

// Only the operator's own page reads the admin port, and a link to it works.
const [own, reply] = await open(admin);
assert.equal(reply.status(), 200);
assert.equal(await own.evaluate(() => fetch("/page/now").then((reply) => reply.status)), 200);
await stranger.evaluate((url) => { document.body.innerHTML = `<a href="${url}">there</a>`; }, admin);
await Promise.all([stranger.waitForURL(`${admin}/`), stranger.click("a")]);
assert.match(await stranger.title(), /Tollgate/i);

await browser.close();
server.close();
console.log("done");
process.exit(0);

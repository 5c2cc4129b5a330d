// The live page in a real browser. Arguments: the proxy's URL, the admin port's URL, the browser, a folder for pictures.
// Whoever started it is told "restart" on standard output when the sidecar should die and come back, and answers with a line.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [proxy, admin, executablePath, pictures] = process.argv.slice(2);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const LLAMA = "@cf/meta/llama-3.2-1b-instruct";

async function call(model, body) {
  const reply = await fetch(`${proxy}/run/${model}`, {
    method: "POST",
    headers: { authorization: "Bearer t", "content-type": "application/json", "cf-aig-metadata": '{"team":"search"}' },
    body: JSON.stringify(body),
  });
  await reply.arrayBuffer();
  return reply.status;
}

async function traffic() {
  for (let n = 0; n < 12; n++) {
    await call(LLAMA, { prompt: `question ${n % 8}`, temperature: 0 });
    await call("@cf/meta/llama-3.1-8b-instruct-fp8-fast", { prompt: `question ${n}`, stream: true });
    await call("@cf/baai/bge-m3", { text: [`text ${n}`, "the same"] });
  }
  await call("@cf/black-forest-labs/flux-1-schnell", { prompt: "a gate", steps: 4 });
  await call(`${LLAMA}<script>alert(1)</script>`, { prompt: "a name that is none" });
}

// Prometheus' text: the sum of a family by one label, and one series' value.
async function metrics() {
  const text = await (await fetch(`${admin}/metrics`)).text();
  const series = [...text.matchAll(/^(\w+)\{(.*)\} (\S+)$/gm)];
  return (name, by) => {
    const sums = {};
    for (const [, family, labels, value] of series) {
      if (family !== name) continue;
      const key = new RegExp(`${by}="([^"]*)"`).exec(labels)?.[1];
      sums[key] = (sums[key] ?? 0) + Number(value);
    }
    return sums;
  };
}

async function until(what, isSo, tries = 300) {
  let last;
  for (let n = 0; n < tries; n++) {
    try { last = await isSo(); if (last === true) return; } catch (error) { last = error; }
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`${what}: ${last}`);
}

const near = (a, b) => Math.abs(a - b) <= 1e-6 * Math.max(1, Math.abs(b));

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const troubles = [];
async function open(name, options) {
  const page = await (await browser.newContext(options)).newPage();
  page.on("console", (message) => message.type() === "error" && troubles.push(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => troubles.push(`${name}: ${error}`));
  page.on("request", (request) => request.url().startsWith(admin) || request.url().startsWith("data:") || troubles.push(`asks ${request.url()}`));
  await page.goto(admin);
  return page;
}

const page = await open("desktop", { viewport: { width: 1200, height: 1600 }, colorScheme: "light" });
await page.locator("#spent-today").waitFor();
await traffic();

await until("the page shows what /metrics says, without being loaded again", async () => {
  const of = await metrics();
  const byModel = of("tollgate_neurons_total", "model");
  const shown = await page.$$eval("#models data.neurons", (all) => all.map((one) => [one.dataset.model, Number(one.value)]));
  const spent = Number(await page.locator("#spent-today").getAttribute("value"));
  const charged = of("tollgate_budget_spent_neurons", "budget")["free allocation"];
  if (!near(spent, charged)) return `spent ${spent}, charged ${charged}`;
  const costly = Object.entries(byModel).filter(([, neurons]) => neurons > 0);
  const wrong = costly.filter(([model, neurons]) => !near(shown.find(([name]) => name === model)?.[1] ?? NaN, neurons));
  return wrong.length === 0 && costly.length >= 4 ? true : JSON.stringify({ wrong, shown });
});

// What is spent on what, in words that a screen reader says.
const told = await page.locator("main").ariaSnapshot();
for (const words of ["Spent today", "neurons", 'meter "Free allocation', "Neurons a minute, by model", "Models today", "The last calls", "flux-1-schnell"]) {
  assert.ok(told.includes(words), `${words} is not in what is told:\n${told}`);
}
assert.equal(await page.locator("main script").count(), 0, "a model's name became markup");

// The vendor's own books beside ours; the model that is none was charged in neither.
await until("both books are held side by side", async () => {
  const verdict = await page.locator("#books").innerText();
  return /ours beside theirs: agrees: 4 models/.test(verdict) || verdict;
});

// A call's receipt is one click away.
await until("the newest call's receipt", async () => {
  const href = await page.locator("#calls a").first().getAttribute("href");
  const { result } = await (await fetch(new URL(href.replace("page/log", "logs"), `${admin}/`))).json();
  return href === `page/log/${result?.id}` && result.model.startsWith("@cf/") || JSON.stringify(result);
});

// By keyboard: from minute to minute, with the table's own words.
await page.locator("#costs-plot").focus();
await page.keyboard.press("End");
const tip = page.locator("#costs-plot .tip");
await until("a minute with calls is found by the arrow keys", async () => {
  if ((await tip.innerText()).includes("flux-1-schnell")) return true;
  await page.keyboard.press("ArrowLeft");
  return tip.innerText();
}, 59);
assert.match(await tip.innerText(), /flux-1-schnell: 172\.8/);
await page.locator("#costs-table summary").focus();
await page.keyboard.press("Enter");
const updated = await page.locator("#tiles").elementHandle();
await call(LLAMA, { prompt: "one more" });
await until("it goes on updating", async () => (await updated.evaluate((old) => !old.isConnected)) || "the tiles are the same");
assert.equal(await page.locator("#costs-table").getAttribute("open"), "", "an update closed what was open");
assert.ok(await page.locator("#costs-table summary").evaluate((summary) => summary === document.activeElement), "an update took the focus away");

// By pointer.
const bars = await page.locator("#traffic-plot .bars").boundingBox();
await page.mouse.move(bars.x + bars.width - 4, bars.y + 20);
await until("the pointer shows a minute", async () => /UTC/.test(await page.locator("#traffic-plot .tip").innerText()));
await page.screenshot({ path: `${pictures}/page-light.png`, fullPage: true });

const dark = await open("dark", { viewport: { width: 1200, height: 1600 }, colorScheme: "dark" });
const [ground, ink] = await dark.evaluate(() => { const { backgroundColor, color } = getComputedStyle(document.body); return [backgroundColor, color]; });
assert.notEqual(ground, await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
assert.notEqual(ground, ink);
await dark.screenshot({ path: `${pictures}/page-dark.png`, fullPage: true });

const phone = await open("phone", { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
assert.ok(overflow <= 0, `the page is ${overflow} px wider than a phone`);
const touched = phone.locator("#traffic-plot .bars");
await touched.scrollIntoViewIfNeeded();
await touched.tap();
await until("a tap shows a minute, and goes on showing it", async () => {
  await phone.waitForTimeout(50);
  return (await phone.locator("#traffic-plot .tip").isVisible()) && /UTC/.test(await phone.locator("#traffic-plot .tip").innerText()) || "nothing is shown";
});
const [shown, drawn] = [await phone.locator("#traffic-plot .tip").boundingBox(), await touched.boundingBox()];
assert.ok(shown.y >= drawn.y + drawn.height, "on a phone a minute's figures cover the bars");
await phone.locator("#costs-title").tap();
assert.ok(!(await phone.locator("#traffic-plot .tip").isVisible()), "a tap elsewhere hides nothing");
await phone.screenshot({ path: `${pictures}/page-phone.png`, fullPage: true });

// What a screen reader says and weak eyes see: names, landmarks, contrast. Without the script, which would change the page meanwhile.
for (const colorScheme of ["light", "dark"]) {
  const still = await (await browser.newContext({ colorScheme, bypassCSP: true })).newPage();
  await still.route("**/script.js", (route) => route.abort());
  await still.goto(admin);
  await still.addScriptTag({ path: createRequire(import.meta.url).resolve("axe-core") });
  const { violations } = await still.evaluate(() => axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], colorScheme);
}

// The log by its filters, a call's receipt, the config in force: by links and forms alone, and with the same care.
const reader = await open("reader", { viewport: { width: 1200, height: 1600 } });
await reader.locator("footer a", { hasText: "log" }).click();
await reader.getByLabel("metadata").fill("team:search");
await reader.getByLabel("ms to").fill("600000");
await reader.getByLabel("tokens in from").fill("1");
await reader.getByRole("button", { name: "Show" }).press("Enter");
await reader.waitForURL(/metadata=team%3Asearch/);
await reader.locator("#calls a").first().waitFor();
const filtered = reader.url();
await reader.getByLabel("metadata").fill("team:nobody");
await reader.getByRole("button", { name: "Show" }).click();
await reader.getByText("no such call").waitFor();
await reader.goto(filtered);
await reader.locator("#calls a").first().click();
await reader.waitForURL(/log\/[0-9a-f]{32}$/);
assert.match(await reader.locator("main").innerText(), /"team":"search"/);
await reader.locator("nav a", { hasText: "config" }).click();
assert.match(await reader.locator("#reload").innerText(), /nothing has changed/);
assert.match(await reader.locator("#config").innerText(), /\[upstream\]/);
const receipt = await reader.goto(filtered).then(() => reader.locator("#calls a").first().getAttribute("href"));
for (const colorScheme of ["light", "dark"]) {
  for (const url of [filtered, new URL(receipt, filtered).href, `${admin}/page/config`]) {
    const still = await (await browser.newContext({ colorScheme, bypassCSP: true })).newPage();
    await still.goto(url);
    await still.addScriptTag({ path: createRequire(import.meta.url).resolve("axe-core") });
    const { violations } = await still.evaluate(() => axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${url} ${colorScheme}`);
  }
}

const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
await plain.goto(admin);
assert.match(await plain.locator("#spent").innerText(), /Spent today/, "without a script the page says nothing");

assert.deepEqual(troubles, []);

// The sidecar dies, and comes back with what it knew.
const before = Number(await page.locator("#spent-today").getAttribute("value"));
await call(LLAMA, { prompt: "the last before the end" });
console.log("stop");
await answers.next();
await until("the page says that nobody answers", async () => /no answer since/.test(await page.locator("#state").innerText()));
console.log("start");
await answers.next();
await until("the page is live again", async () => (await page.locator("#state").innerText()) === "live");
await until("what was spent is known after a restart", async () => {
  const after = Number(await page.locator("#spent-today").getAttribute("value"));
  const models = await page.locator("#models").innerText();
  return (after >= before && /flux-1-schnell/.test(models)) || `${after} after, ${before} before; ${models}`;
});
await browser.close();
console.log("done");
process.exit(0);

// An operator's keys and budgets by forms alone. Arguments: the proxy's URL, the admin port's URL, a model, the browser.
// The admin token is "open sesame"; there are budgets "each team's", split by metadata, and "all of us", and search has spent.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [proxy, admin, model, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const troubles = [];
const httpCredentials = { username: "maria", password: "open sesame" };
// Without scripts, as all of this has to work.
const context = await browser.newContext({ httpCredentials, javaScriptEnabled: false, viewport: { width: 1200, height: 1400 } });
const page = await context.newPage();
page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
page.on("request", (request) => request.url().startsWith(admin) || request.url().startsWith("data:") || troubles.push(`asks ${request.url()}`));

async function opens(key) {
  const reply = await fetch(`${proxy}/run/${model}`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "cf-aig-metadata": '{"team":"search"}' },
    body: JSON.stringify({ prompt: "x", max_tokens: 2 }),
  });
  await reply.arrayBuffer();
  return reply.status;
}

async function isWellMade(url) {
  for (const colorScheme of ["light", "dark"]) {
    const still = await (await browser.newContext({ httpCredentials, colorScheme, bypassCSP: true })).newPage();
    await still.goto(url);
    await still.addScriptTag({ path: createRequire(import.meta.url).resolve("axe-core") });
    const { violations } = await still.evaluate(() => axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${url} ${colorScheme}`);
  }
  const phone = await (await browser.newContext({ httpCredentials, viewport: { width: 360, height: 740 }, isMobile: true })).newPage();
  await phone.goto(url);
  const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${url} is ${overflow} px wider than a phone`);
}

// A key, made by the keyboard alone.
await page.goto(admin);
await page.locator("footer a", { hasText: "keys" }).press("Enter");
await page.getByLabel("name (needed)").focus();
await page.keyboard.type("search");
await page.keyboard.press("Tab");
await page.keyboard.type("ops");
await page.keyboard.press("Tab");
await page.keyboard.type("team=search, cost=12");
await page.keyboard.press("Enter");
const key = await page.locator("#made").inputValue();
assert.match(key, /^tg_/);
assert.match(await page.locator("main").ariaSnapshot(), /status: "It is in force.*once/);
assert.equal(await opens(key), 200);
assert.equal(await opens("tg_wrong"), 401);

// What cannot be says why, and keeps what was typed.
await page.getByRole("link", { name: "all keys" }).click();
await page.getByLabel("name (needed)").fill("search");
await page.getByLabel("owner", { exact: true }).fill("somebody else");
await page.getByRole("button", { name: "Make it" }).click();
assert.match(await page.getByRole("alert").innerText(), /there is a key "search" already/);
assert.equal(await page.getByLabel("owner", { exact: true }).inputValue(), "somebody else");
await page.getByLabel("in name, owner or labels").fill("cost");
await page.getByRole("button", { name: "Find" }).click();
const found = page.url();
await page.getByRole("link", { name: "search", exact: true }).click();
const one = page.url();
assert.match(await page.locator("main").innerText(), /cost=12, team=search/);

// Changed, rotated, revoked.
await page.getByLabel("requests a minute").fill("600");
await page.getByRole("button", { name: "Change" }).click();
assert.match(await page.locator("table").innerText(), /requests a minute\s+600/);
await page.getByLabel("the old one holds for").fill("1h");
await page.getByRole("button", { name: "Make the next key" }).click();
const next = await page.locator("#made").inputValue();
assert.notEqual(next, key);
assert.deepEqual([await opens(key), await opens(next)], [200, 200]);
await isWellMade(found);
await isWellMade(one);
await page.goto(one);
await page.getByRole("button", { name: "Revoke" }).click();
assert.equal(await opens(next), 200, "revoked without being sure");
await page.getByLabel("Its clients are refused from then on").check();
await page.getByRole("button", { name: "Revoke" }).click();
assert.match(await page.locator("table").innerText(), /stands\s+revoked/);
assert.deepEqual([await opens(key), await opens(next)], [401, 401]);

// Budgets: a raise, and one bucket begun anew.
await page.getByRole("link", { name: "budgets" }).click();
await isWellMade(page.url());
assert.match(await page.locator("#budgets").innerText(), /free allocation/);
await page.getByRole("link", { name: "all of us" }).click();
await page.getByLabel("to (needed)").fill("20 USD");
await page.getByLabel("reason", { exact: true }).fill("launch day");
await page.getByRole("button", { name: "Raise" }).click();
assert.match(await page.getByRole("status").innerText(), /raised/);
assert.match(await page.locator("#budget").innerText(), /\$20\.00/);
await page.goto(`${admin}/page/budgets`);
await page.getByRole("link", { name: "each team's" }).click();
const budget = page.url();
const row = page.locator("#budget tr", { hasText: "search" });
const spent = () => row.locator("data").nth(1).getAttribute("value").then(Number);
assert.ok((await spent()) > 0);
const anew = page.locator("form", { hasText: "Forget" });
await anew.getByLabel("bucket (needed)").fill('["nobody"]');
await anew.getByLabel("reason for the log").fill("a job ran wild");
await anew.getByRole("button").click();
assert.match(await page.getByRole("alert").innerText(), /nobody/);
await anew.getByLabel("bucket (needed)").fill('["search"]');
await anew.getByRole("button").click();
assert.match(await page.getByRole("status").innerText(), /begun anew/);
assert.equal(await spent(), 0);
await isWellMade(budget);

// A page that cannot be, says so with a browser's own word for it; nothing else was complained of.
assert.deepEqual(troubles.filter((trouble) => !/40[049]/.test(trouble)), []);
await browser.close();
console.log("done");
process.exit(0);

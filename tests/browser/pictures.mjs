// The README's pictures: see dashboards/pictures/make. Arguments: the admin port's URL, Prometheus', the minutes that both have
// seen, the browser, the folder of the dashboards, and the one for the pictures.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [admin, prometheus, minutes, executablePath, dashboards, pictures] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function livePage(name, options) {
  const page = await (await browser.newContext(options)).newPage();
  await page.goto(admin);
  // The minute before the last, which is whole.
  await page.locator("#costs-plot").focus();
  for (const key of ["End", "ArrowLeft"]) await page.keyboard.press(key);
  await page.evaluate(() => document.activeElement.style.setProperty("outline", "none"));
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

const viewport = { width: 1200, height: 900 };
await livePage("live-page", { viewport, colorScheme: "light" });
await livePage("live-page-dark", { viewport, colorScheme: "dark" });

// One query of each dashboard, as the panel has it.
function query(file, title) {
  const { panels } = JSON.parse(readFileSync(`${dashboards}/${file}.json`, "utf8"));
  const panel = panels.find((panel) => panel.title === title);
  assert.ok(panel, `${file} has no panel ${title}`);
  const filled = { $model: ".*", $instance: ".*", $__rate_interval: "1m" };
  return Object.entries(filled).reduce((text, [name, value]) => text.replaceAll(name, value), panel.targets[0].expr);
}

const graphs = [["cost", "USD an hour by model", 1], ["traffic", "Calls a second by outcome", 1], ["limits", "Waiting by model", 0]];
const asked = graphs.flatMap(([file, title, stacked], n) => Object.entries({
  expr: query(file, title), tab: 0, stacked, range_input: `${minutes}m`,
}).map(([key, value]) => `g${n}.${key}=${encodeURIComponent(value)}`));
const page = await (await browser.newContext({ viewport })).newPage();
await page.goto(`${prometheus}/graph?${asked.join("&")}`);
await page.locator(".rickshaw_graph svg").nth(graphs.length - 1).waitFor();
await page.waitForTimeout(1000);
await page.screenshot({ path: `${pictures}/prometheus.png`, fullPage: true, style: "nav { position: absolute !important }" });
await browser.close();

// Asks for the changing part of the page every two seconds, and shows a minute's figures under pointer or arrow keys.
"use strict";

const EVERY_MS = 2000;
const now = document.getElementById("now");
const state = document.getElementById("state");
const chosen = new Map(); // by plot: the minute that is shown
let lostAt = null;

async function update() {
  try {
    const reply = await fetch("page/now", { cache: "no-store", signal: AbortSignal.timeout(10 * EVERY_MS) });
    if (!reply.ok) throw new Error(`the gate says ${reply.status}`);
    replace(await reply.text());
    tell("live", false);
    lostAt = null;
  } catch {
    lostAt ??= new Date();
    tell(`no answer since ${lostAt.toLocaleTimeString()}; trying again`, true);
  }
}

function tell(words, isLost) {
  if (state.textContent !== words) state.textContent = words;
  state.classList.toggle("lost", isLost);
}

// What a person has opened, scrolled or focused stays as it is.
function replace(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  for (const part of [...fresh.children]) {
    const old = document.getElementById(part.id);
    if (!old) { now.append(part); continue; }
    if (old.outerHTML === part.outerHTML) continue;
    for (const open of old.querySelectorAll("details[open]")) part.querySelector(`#${open.id}`)?.setAttribute("open", "");
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    const focused = old.contains(document.activeElement) ? path(old, document.activeElement) : null;
    old.replaceWith(part);
    part.querySelectorAll(".scroll").forEach((box, n) => { if (scrolled[n]) [box.scrollLeft, box.scrollTop] = scrolled[n]; });
    if (focused) find(part, focused)?.focus({ preventScroll: true });
  }
  for (const [id, minute] of chosen) show(document.getElementById(id), minute, false);
}

// Where in a part an element stands: its place among its siblings, level by level.
function path(from, to) {
  const steps = [];
  for (let at = to; at !== from; at = at.parentElement) steps.unshift([...at.parentElement.children].indexOf(at));
  return steps;
}

function find(from, steps) {
  return steps.reduce((at, step) => at?.children[step], from);
}

function rows(plot) {
  return plot.parentElement.querySelector("tbody").rows;
}

// The tip takes its words from the table, so that both say the same.
function show(plot, minute, isNew) {
  const row = plot && rows(plot)[minute];
  if (!row) return;
  const names = plot.parentElement.querySelectorAll("thead th");
  const parts = [...row.cells].slice(1).map((cell, n) => [names[n + 1].textContent, cell]);
  const lines = parts.filter(([, cell]) => Number(cell.dataset.value) > 0).map(([name, cell]) => `${name}: ${cell.textContent}`);
  const tip = plot.querySelector(".tip");
  const cursor = plot.querySelector(".cursor");
  const count = rows(plot).length;
  const bars = plot.querySelector(".bars");
  const words = `${row.cells[0].textContent} UTC\n${lines.join("\n") || "nothing"}`;
  if (isNew || tip.textContent !== words) tip.textContent = words;
  tip.style.display = "block";
  const isRight = minute > count / 2;
  tip.style.left = isRight ? "4.6rem" : "auto";
  tip.style.right = isRight ? "auto" : "0";
  cursor.style.display = "block";
  cursor.style.left = `${(100 * minute) / count}%`;
  cursor.style.width = `${100 / count}%`;
  chosen.set(plot.id, minute);
  bars.dataset.minute = minute;
}

function hide(plot) {
  plot.querySelector(".tip").style.display = "none";
  plot.querySelector(".cursor").style.display = "none";
  chosen.delete(plot.id);
}

const plotOf = (event) => event.target.closest?.(".plot");

function point(event) {
  const plot = plotOf(event);
  if (!plot) return;
  const box = plot.querySelector(".bars").getBoundingClientRect();
  const count = rows(plot).length;
  const minute = Math.floor(((event.clientX - box.left) / box.width) * count);
  if (minute >= 0 && minute < count) show(plot, minute, true);
}

now.addEventListener("pointermove", point);
// A finger that taps does not move; what it has shown stays until it taps elsewhere.
document.addEventListener("pointerdown", (event) => {
  const plot = plotOf(event);
  for (const id of [...chosen.keys()]) if (id !== plot?.id) hide(document.getElementById(id));
  point(event);
});
now.addEventListener("pointerout", (event) => {
  const plot = plotOf(event);
  if (event.pointerType !== "touch" && plot && !plot.contains(event.relatedTarget) && document.activeElement !== plot) hide(plot);
});
now.addEventListener("keydown", (event) => {
  const plot = plotOf(event);
  if (!plot) return;
  const last = rows(plot).length - 1;
  const at = chosen.get(plot.id) ?? last + 1;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
  if (event.key === "Escape") hide(plot);
  if (to === undefined) return;
  event.preventDefault();
  show(plot, Math.min(Math.max(to, 0), last), true);
});
now.addEventListener("focusout", (event) => {
  const plot = plotOf(event);
  if (plot && event.relatedTarget) hide(plot);
});

(async function run() {
  for (;;) {
    await new Promise((done) => setTimeout(done, EVERY_MS));
    if (!document.hidden) await update();
  }
})();

// The sidecar under test, and fetch functions that lead to it.
import assert from "node:assert/strict";
import test from "node:test";

export const gate = process.env.TOLLGATE_URL;
assert.ok(gate, "TOLLGATE_URL is the sidecar's address");

/** Leads what was meant for Cloudflare to the sidecar. */
export function throughTheGate(url, init) {
  return fetch(String(url).replace("https://api.cloudflare.com", gate), init);
}

/** A fetch that keeps each request's headers and each reply, and may change the n-th request. */
export function recorded(change = () => {}) {
  const requests = [];
  const replies = [];
  async function recording(url, init) {
    const headers = new Headers(init?.headers);
    change(headers, requests.length);
    requests.push(headers);
    const reply = await throughTheGate(url, { ...init, headers });
    replies.push(reply);
    return reply;
  }
  return { fetch: recording, requests, replies };
}

/** The pauses in milliseconds that are asked of the clock while `work` runs. */
export async function pausesOf(work) {
  const real = globalThis.setTimeout;
  const pauses = [];
  globalThis.setTimeout = (then, millis, ...rest) => {
    pauses.push(millis);
    return real(then, millis, ...rest);
  };
  try {
    await work();
  } finally {
    globalThis.setTimeout = real;
  }
  return pauses;
}

/** A WAV file of so many seconds of silence: 8 kHz, mono, 8 bits. */
export function silence(seconds) {
  const samples = seconds * 8000;
  const wav = Buffer.alloc(44 + samples, 128);
  wav.write("RIFF", 0);
  wav.writeUInt32LE(36 + samples, 4);
  wav.write("WAVEfmt ", 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20);
  wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(8000, 24);
  wav.writeUInt32LE(8000, 28);
  wav.writeUInt16LE(1, 32);
  wav.writeUInt16LE(8, 34);
  wav.write("data", 36);
  wav.writeUInt32LE(samples, 40);
  return new Uint8Array(wav);
}

export const LLAMA = "@cf/meta/llama-3.2-1b-instruct";
export const GEMMA = "@cf/google/gemma-4-26b-a4b-it";
/** The test's sidecar lets one call a second through to this one, and lets none wait. */
export const ONE_A_SECOND = "@cf/meta/llama-3.2-3b-instruct";
/** And has no money for this one. */
export const PENNILESS = "@cf/meta/llama-3.1-8b-instruct-fp8";
export const QWEN = "@cf/qwen/qwen3-30b-a3b-fp8";
export const VISION = "@cf/meta/llama-3.2-11b-vision-instruct";
export const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/** The ways in which the vendor's models tell a stream's usage: the simulator takes them from this header. */
export const STYLES = ["end", "running", "increments", "none"].map((style) => ({ "x-simulate-usage": style }));
/** A stream that begins, and then says nothing more. */
export const STALLED = { "x-simulate": "stall-mid" };

/**
 * Tries a thing at the gate, and then the same on the vendor's paths, through a server that compares each reply with the vendor's;
 * what a client makes of the vendor's quirks there is its own.
 */
export function tries(thing, cell, [ours, vendors] = [`${gate}/v1`, `${process.env.TOLLGATE_TWIN}/client/v4/accounts/acc/ai/v1`]) {
  test(thing, async () => {
    await cell(ours);
    console.log(`tried: ${thing};`);
    if (!["429", "cancel", "fifty at once"].includes(thing)) {
      await Promise.resolve(cell(vendors)).catch((error) => console.log(`on the vendor's paths, ${thing}: ${error}`.slice(0, 300)));
    }
  });
}

async function metric(name, label) {
  const text = await (await realFetch(`${process.env.TOLLGATE_ADMIN}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) && line.includes(label));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Tests may put their own in its place. */
const realFetch = globalThis.fetch;

/** Calls until one was refused before it was answered: on a slow machine a call may take longer than its turn. */
export async function obeyed(call) {
  const refused = () => metric("tollgate_rate_limit_rejected_total", `model="${ONE_A_SECOND}"`);
  const before = await refused();
  for (let n = 0; n < 20; n += 1) {
    await call(`turn ${n}`);
    if ((await refused()) > before) return;
  }
  assert.fail("no call came before its turn");
}

/** The gate has seen the client go. */
export async function left(leave) {
  const aborted = () => metric("tollgate_requests_total", 'outcome="aborted"');
  const before = await aborted();
  await leave();
  for (let n = 0; n < 600; n += 1) {
    if ((await aborted()) > before) return;
    await new Promise((then) => setTimeout(then, 50));
  }
  assert.fail("the gate did not see the client go");
}

/** Fifty calls at once, of which each is to give a text. */
export async function fifty(call) {
  const texts = await Promise.all([...Array(50).keys()].map((n) => call(`${n} at once`)));
  assert.ok(texts.every((text) => text), JSON.stringify(texts));
}

// The sidecar under test, and fetch functions that lead to it.
import assert from "node:assert/strict";

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

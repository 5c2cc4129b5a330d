// Cloudflare's Agents SDK (`createAI`) over REST; its hosts are fixed, so `fetch` leads it here.
import assert from "node:assert/strict";
import test from "node:test";
import { createAI } from "agents/models/ai-sdk";
import { Output, embedMany, generateImage, generateSpeech, generateText, isStepCount, rerank, streamText, tool, transcribe } from "ai";
import { z } from "zod";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, STALLED, STYLES, VISION, fifty, gate, left, obeyed, silence, tries as tried } from "./gate.js";

const real = globalThis.fetch;
const asked = [];
let [base, simulated] = [gate, {}];
globalThis.fetch = async (url, init) => {
  const here = String(url).replace(/^https:\/\/(api\.cloudflare\.com|gateway\.ai\.cloudflare\.com)/, base);
  assert.notEqual(here, String(url), "a host that is not led to the gate");
  const headers = new Headers(init?.headers);
  Object.entries(simulated).forEach(([name, value]) => headers.set(name, value));
  const reply = await real(here, { ...init, headers });
  asked.push({ path: new URL(here).pathname, status: reply.status, id: reply.headers.get("cf-aig-log-id") });
  return reply;
};

/** Its paths are the vendor's: the same twice, at the gate and at the server that compares. */
const tries = (thing, cell) => tried(thing, async (at) => {
  [base, simulated] = [at, {}];
  await cell(at).finally(() => ([base, simulated] = [gate, {}]));
}, [gate, process.env.TOLLGATE_TWIN]);

const ai = createAI({ accountId: "023e105f4ecef8ad9ca31a8372d0c353", apiToken: "any", id: "default" });
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

tries("chat", async () => {
  for (const model of [LLAMA, GEMMA]) {
    const { text, usage, finishReason } = await generateText({ model: ai(model), prompt: "Why is the sky blue?" });
    assert.ok(text);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
    assert.equal(finishReason, "stop");
    assert.equal(asked.at(-1).path, `/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/run/${model}`);
    assert.ok(asked.at(-1).id, "the gate's record of the call");
  }
});

tries("streams", async () => {
  for (const [model, style] of [[LLAMA, {}], [GEMMA, {}], ...STYLES.map((style) => [LLAMA, style])]) {
    simulated = style;
    const stream = streamText({ model: ai(model), prompt: "Tell me a tale." });
    let pieces = 0;
    for await (const piece of stream.textStream) pieces += piece ? 1 : 0;
    const usage = await stream.usage;
    assert.ok(pieces > 1, `${pieces} pieces`);
    // What the vendor does not tell, its own client does not know on the vendor's path.
    assert.ok(style["x-simulate-usage"] === "none" || (usage.inputTokens > 0 && usage.outputTokens > 0), JSON.stringify([style, usage]));
  }
});

tries("tools", async () => {
  for (const model of [LLAMA, GEMMA]) {
    const messages = [];
    for (const city of ["Oslo", "Rome"]) {
      messages.push({ role: "user", content: `Is it raining in ${city}?` });
      const { text, steps, response } = await generateText({ model: ai(model), tools: { weather }, stopWhen: isStepCount(2), messages });
      assert.equal(steps[0].toolCalls[0].toolName, "weather");
      assert.match(steps[0].toolResults[0].output, /^Rain in /);
      assert.ok(text);
      messages.push(...response.messages);
    }
  }
});

tries("structured output", async () => {
  const schema = z.object({ name: z.string(), age: z.number() });
  const { output } = await generateText({ model: ai(LLAMA), output: Output.object({ schema }), prompt: "Somebody." });
  assert.ok(schema.safeParse(output).success, JSON.stringify(output));
});

tries("embeddings", async () => {
  const { embeddings } = await embedMany({ model: ai.embedding("@cf/baai/bge-m3"), values: ["a sky", "a sea"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [1024, 1024]);
});

tries("vision", async () => {
  const content = [{ type: "text", text: "What is this?" }, { type: "image", image: Buffer.from(PIXEL, "base64"), mediaType: "image/png" }];
  assert.ok((await generateText({ model: ai(VISION), messages: [{ role: "user", content }] })).text);
});

tries("errors", async () => {
  const told = (error) => `${error.message} ${error.responseBody ?? ""} ${error.cause?.message ?? ""}`;
  const unknown = generateText({ model: ai("@cf/nobody/knows"), prompt: "?", maxRetries: 0 });
  await assert.rejects(unknown, (error) => /@cf\/nobody\/knows|No such model/.test(told(error)));
  for (const [simulate, status] of [["5006", 400], ["10000", 401], ["3040", 429]]) {
    simulated = { "x-simulate": simulate };
    await assert.rejects(generateText({ model: ai(LLAMA), prompt: simulate, maxRetries: 0 }));
    assert.equal(asked.at(-1).status, status);
  }
  simulated = {};
  await assert.rejects(generateText({ model: ai(PENNILESS), prompt: "spend", maxRetries: 0 }), (error) => /budget/.test(told(error)));
});

tries("429", () => obeyed((prompt) => generateText({ model: ai(ONE_A_SECOND), prompt, maxRetries: 8 })));

tries("cancel", () => left(async () => {
  simulated = STALLED;
  const leaving = new AbortController();
  const stream = streamText({ model: ai(LLAMA), prompt: "Leave.", abortSignal: leaving.signal });
  for await (const _ of stream.textStream) leaving.abort();
}));

tries("fifty at once", () => fifty(async (prompt) => (await generateText({ model: ai(LLAMA), prompt, maxRetries: 0 })).text));

test("the next model answers where one cannot", async () => {
  const model = ai("@cf/nobody/knows", { fallback: [LLAMA] });
  const { text } = await generateText({ model, prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.deepEqual(asked.slice(-2).map(({ status }) => status >= 400), [true, false]);
});

test("pictures and a reranking", async () => {
  const { image } = await generateImage({ model: ai.image("@cf/black-forest-labs/flux-1-schnell"), prompt: "A fox" });
  assert.ok(image.uint8Array.length > 0);
  const { ranking } = await rerank({ model: ai.reranking("@cf/baai/bge-reranker-base"), query: "sky", documents: ["a sea", "a sky"] });
  assert.equal(ranking.length, 2);
});

test("speech both ways", async () => {
  const heard = await transcribe({ model: ai.transcription("@cf/openai/whisper-large-v3-turbo"), audio: silence(2) });
  assert.equal(typeof heard.text, "string");
  const { audio } = await generateSpeech({ model: ai.speech("@cf/deepgram/aura-1"), text: "The quick brown fox." });
  assert.ok(audio.uint8Array.length > 0);
});

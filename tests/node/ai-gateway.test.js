// ai-gateway-provider sends a list of steps to the AI Gateway's universal endpoint; its host is fixed, so `fetch` leads it here.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import { createAiGateway } from "ai-gateway-provider";
import { createUnified } from "ai-gateway-provider/providers/unified";
import { z } from "zod";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, STALLED, STYLES, VISION, fifty, gate, left, obeyed, tries as tried } from "./gate.js";

const real = globalThis.fetch;
const steps = [];
let base = gate;
globalThis.fetch = async (url, init) => {
  const reply = await real(String(url).replace("https://gateway.ai.cloudflare.com", base), init);
  steps.push({ step: reply.headers.get("cf-aig-step"), status: reply.status });
  return reply;
};

/** Its path is the vendor's: the same twice, at the gate and at the server that compares. */
const tries = (thing, cell) => tried(thing, async (at) => {
  base = at;
  await cell(at).finally(() => (base = gate));
}, [gate, process.env.TOLLGATE_TWIN]);

const gateway = createAiGateway({ accountId: "acc", gateway: "gw", apiKey: "any" });
const unified = createUnified({ apiKey: "any" });
const openai = createOpenAICompatible({ name: "openai", baseURL: "https://api.openai.com/v1", apiKey: "any" });
const [llama, gone, gpt] = [unified(`workers-ai/${LLAMA}`), unified("workers-ai/@cf/nobody/knows"), openai("gpt-test")];
const ai = (model) => gateway(unified(`workers-ai/${model}`));
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

tries("chat", async () => {
  for (const model of [LLAMA, GEMMA]) {
    const { text, usage } = await generateText({ model: ai(model), prompt: "Why is the sky blue?" });
    assert.ok(text && usage.outputTokens > 0);
    assert.equal(steps.at(-1).step, "0");
  }
});

tries("streams", async () => {
  for (const [model, headers] of [[LLAMA, {}], [GEMMA, {}], ...STYLES.map((style) => [LLAMA, style])]) {
    const asked = { model: ai(model), prompt: "Tell me a tale.", headers };
    const whole = await generateText(asked);
    const stream = streamText(asked);
    let [text, pieces] = ["", 0];
    for await (const piece of stream.textStream) [text, pieces] = [text + piece, pieces + 1];
    assert.ok(pieces > 1 && text === whole.text, JSON.stringify([headers, pieces, text]));
  }
});

tries("tools", async () => {
  for (const model of [LLAMA, GEMMA]) {
    const messages = [];
    for (const city of ["Oslo", "Rome"]) {
      messages.push({ role: "user", content: `Is it raining in ${city}?` });
      const { text, steps: rounds, response } = await generateText({ model: ai(model), tools: { weather }, stopWhen: isStepCount(2), messages });
      assert.equal(rounds[0].toolCalls[0].toolName, "weather");
      assert.ok(text);
      messages.push(...response.messages);
    }
  }
});

tries("vision", async () => {
  const content = [{ type: "text", text: "What is this?" }, { type: "image", image: Buffer.from(PIXEL, "base64"), mediaType: "image/png" }];
  assert.ok((await generateText({ model: ai(VISION), messages: [{ role: "user", content }] })).text);
});

tries("errors", async () => {
  for (const [simulate, status] of [["5006", 400], ["10000", 401], ["3040", 429]]) {
    await assert.rejects(generateText({ model: ai(LLAMA), prompt: simulate, maxRetries: 0, headers: { "x-simulate": simulate } }));
    assert.equal(steps.at(-1).status, status);
  }
  await assert.rejects(generateText({ model: ai(PENNILESS), prompt: "spend", maxRetries: 0 }));
  assert.equal(steps.at(-1).status, 429, "the vendor's own status for what a budget refuses");
});

tries("429", () => obeyed((prompt) => generateText({ model: ai(ONE_A_SECOND), prompt, maxRetries: 8 })));

tries("cancel", () => left(async () => {
  const leaving = new AbortController();
  const stream = streamText({ model: ai(LLAMA), prompt: "Leave.", abortSignal: leaving.signal, headers: STALLED });
  for await (const _ of stream.textStream) leaving.abort();
}));

tries("fifty at once", () => fifty(async (prompt) => (await generateText({ model: ai(LLAMA), prompt, maxRetries: 0 })).text));

test("the next model answers where one cannot, whole and streamed", async () => {
  const { text } = await generateText({ model: gateway([gone, llama]), prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.equal(steps.at(-1).step, "1");
  let pieces = 0;
  for await (const piece of streamText({ model: gateway([gone, llama]), prompt: "Tell me a tale." }).textStream) pieces += piece ? 1 : 0;
  assert.ok(pieces > 1);
});

test("another provider's model answers", async () => {
  const { text } = await generateText({ model: gateway([gone, gpt]), prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.equal(steps.at(-1).step, "1");
});

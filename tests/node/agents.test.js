// Cloudflare's Agents SDK (`createAI`) over REST; its hosts are fixed, so `fetch` leads it here.
import assert from "node:assert/strict";
import test from "node:test";
import { createAI } from "agents/models/ai-sdk";
import { embedMany, generateImage, generateSpeech, generateText, isStepCount, rerank, streamText, tool, transcribe } from "ai";
import { z } from "zod";
import { GEMMA, LLAMA, silence } from "./gate.js";

const real = globalThis.fetch;
const asked = [];
globalThis.fetch = async (url, init) => {
  const here = String(url).replace(/^https:\/\/(api\.cloudflare\.com|gateway\.ai\.cloudflare\.com)/, process.env.TOLLGATE_URL);
  assert.notEqual(here, String(url), "a host that is not led to the gate");
  const reply = await real(here, init);
  asked.push({ path: new URL(here).pathname, status: reply.status, id: reply.headers.get("cf-aig-log-id") });
  return reply;
};

const ai = createAI({ accountId: "023e105f4ecef8ad9ca31a8372d0c353", apiToken: "any", id: "default" });
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

for (const model of [LLAMA, GEMMA]) {
  test(`generateText with ${model}`, async () => {
    const { text, usage, finishReason } = await generateText({ model: ai(model), prompt: "Why is the sky blue?" });
    assert.ok(text);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
    assert.equal(finishReason, "stop");
    assert.equal(asked.at(-1).path, `/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/run/${model}`);
    assert.ok(asked.at(-1).id, "the gate's record of the call");
  });

  test(`streamText with ${model}`, async () => {
    const stream = streamText({ model: ai(model), prompt: "Tell me a tale." });
    let pieces = 0;
    for await (const piece of stream.textStream) pieces += piece ? 1 : 0;
    const usage = await stream.usage;
    assert.ok(pieces > 1, `${pieces} pieces`);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
  });

  test(`a tool of ${model} is run and its result answered`, async () => {
    const { text, steps } = await generateText({
      model: ai(model), tools: { weather }, stopWhen: isStepCount(2), prompt: "Is it raining in Oslo?",
    });
    assert.equal(steps[0].toolCalls[0].toolName, "weather");
    assert.match(steps[0].toolResults[0].output, /^Rain in /);
    assert.ok(text);
  });
}

test("the next model answers where one cannot", async () => {
  const model = ai("@cf/nobody/knows", { fallback: [LLAMA] });
  const { text } = await generateText({ model, prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.deepEqual(asked.slice(-2).map(({ status }) => status >= 400), [true, false]);
});

test("embeddings, pictures and a reranking", async () => {
  const { embeddings } = await embedMany({ model: ai.embedding("@cf/baai/bge-m3"), values: ["a sky", "a sea"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [1024, 1024]);
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

test("a refusal has the vendor's words", async () => {
  await assert.rejects(generateText({ model: ai("@cf/nobody/knows"), prompt: "?", maxRetries: 0 }), (error) => {
    assert.match(`${error.message} ${error.responseBody ?? ""} ${error.cause?.message ?? ""}`, /@cf\/nobody\/knows|No such model/);
    return true;
  });
});

// The Vercel AI SDK with Cloudflare's provider: the provider's `fetch` is the one line that changes.
import assert from "node:assert/strict";
import test from "node:test";
import {
  APICallError, Output, embed, embedMany, generateImage, generateObject, generateSpeech, generateText, rerank, streamObject, streamText, tool,
  transcribe, isStepCount,
} from "ai";
import { createWorkersAI } from "workers-ai-provider";
import { z } from "zod";
import { GEMMA, LLAMA, gate, recorded, silence, throughTheGate } from "./gate.js";

const credentials = { accountId: "023e105f4ecef8ad9ca31a8372d0c353", apiKey: "any" };
const workersai = createWorkersAI({ ...credentials, fetch: throughTheGate });
const QWEN = "@cf/qwen/qwen3-30b-a3b-fp8";
const LLAMA_70B = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";
const person = z.object({ name: z.string(), age: z.number(), tags: z.array(z.string()) });
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

for (const model of [LLAMA, QWEN, GEMMA]) {
  test(`generateText with ${model}`, async () => {
    const { text, usage, finishReason } = await generateText({ model: workersai(model), prompt: "Why is the sky blue?" });
    assert.ok(text);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
    assert.equal(finishReason, "stop");
  });

  test(`streamText with ${model}`, async () => {
    const stream = streamText({ model: workersai(model), prompt: "Tell me a tale." });
    let pieces = 0;
    for await (const piece of stream.textStream) {
      pieces += piece ? 1 : 0;
    }
    const usage = await stream.usage;
    assert.ok(pieces > 1, `${pieces} pieces`);
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(usage));
    assert.equal(await stream.finishReason, "stop");
  });

  test(`generateObject with ${model} fits its schema`, async () => {
    const { object } = await generateObject({ model: workersai(model), schema: person, prompt: "Somebody." });
    assert.ok(person.safeParse(object).success, JSON.stringify(object));
  });

  test(`a tool of ${model} is run and its result answered`, async () => {
    const { text, steps } = await generateText({
      model: workersai(model), tools: { weather }, stopWhen: isStepCount(2), prompt: "Is it raining in Oslo?",
    });
    assert.equal(steps[0].toolCalls[0].toolName, "weather");
    assert.match(steps[0].toolResults[0].output, /^Rain in /);
    assert.ok(text);
  });

  test(`a streamed tool call of ${model}`, async () => {
    const stream = streamText({ model: workersai(model), tools: { weather }, prompt: "Is it raining in Rome?" });
    await stream.consumeStream();
    const [call] = await stream.toolCalls;
    assert.equal(call.toolName, "weather");
    assert.equal(typeof call.input.city, "string");
  });
}

test("streamObject fits its schema", async () => {
  const stream = streamObject({ model: workersai(LLAMA_70B), schema: person, prompt: "Somebody else." });
  for await (const _ of stream.partialObjectStream);
  assert.ok(person.safeParse(await stream.object).success);
});

test("generateText with an object as its output", async () => {
  const { output } = await generateText({
    model: workersai(LLAMA_70B), output: Output.object({ schema: person }), prompt: "Yet somebody else.",
  });
  assert.ok(person.safeParse(output).success);
});

test("embed and embedMany", async () => {
  const model = workersai.embedding("@cf/baai/bge-m3");
  const { embedding } = await embed({ model, value: "a bridge" });
  assert.equal(embedding.length, 1024);
  const { embeddings } = await embedMany({ model, values: ["a bridge", "a river", "a stone"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [1024, 1024, 1024]);
  assert.deepEqual(embeddings[0], embedding);
});

test("generateImage", async () => {
  const { image } = await generateImage({ model: workersai.image("@cf/black-forest-labs/flux-1-schnell"), prompt: "a bridge" });
  assert.equal(Buffer.from(image.uint8Array).subarray(1, 4).toString(), "PNG");
  assert.equal(image.mediaType, "image/png");
});

for (const model of ["@cf/openai/whisper", "@cf/openai/whisper-large-v3-turbo"]) {
  test(`transcribe with ${model}`, async () => {
    const { text, durationInSeconds } = await transcribe({ model: workersai.transcription(model), audio: silence(2) });
    assert.ok(text);
    assert.equal(durationInSeconds, 2);
  });
}

test("transcribe with nova-3, for which the provider asks the global fetch whatever its own is", async (context) => {
  const real = globalThis.fetch;
  context.mock.method(globalThis, "fetch", (url, init) => real(String(url).replace("https://api.cloudflare.com", gate), init));
  const model = workersai.transcription("@cf/deepgram/nova-3");
  const { text } = await transcribe({ model, audio: silence(2) });
  assert.ok(text);
});

test("generateSpeech", async () => {
  const { audio } = await generateSpeech({ model: workersai.speech("@cf/deepgram/aura-1"), text: "The river is quiet." });
  assert.ok(audio.uint8Array.length > 1000);
  assert.equal(audio.mediaType, "audio/mpeg");
});

test("rerank", async () => {
  const documents = ["a stone", "a river", "a bridge"];
  const { ranking } = await rerank({ model: workersai.reranking("@cf/baai/bge-reranker-base"), documents, query: "water", topN: 2 });
  assert.equal(ranking.length, 2);
  assert.ok(documents.includes(ranking[0].document));
});

test("a failure is an APICallError that says whether a retry is of use", async () => {
  for (const [simulate, status, isRetryable] of [["5006", 400, false], ["3040", 429, true]]) {
    const wire = recorded((headers) => headers.set("x-simulate", simulate));
    const failing = createWorkersAI({ ...credentials, fetch: wire.fetch });
    await assert.rejects(generateText({ model: failing(LLAMA), prompt: `fail with ${simulate}`, maxRetries: 0 }), (error) => {
      assert.ok(APICallError.isInstance(error), `${error}`);
      assert.deepEqual([error.statusCode, error.isRetryable], [status, isRetryable]);
      return true;
    });
    assert.equal(wire.requests.length, 1);
  }
});

test("its retries come when retry-after says", async () => {
  const wire = recorded((headers, n) => n === 0 && headers.set("x-simulate", "3040;retry-after=1"));
  const retrying = createWorkersAI({ ...credentials, fetch: wire.fetch });
  const { text } = await generateText({ model: retrying(LLAMA), prompt: "room now?" });
  assert.ok(text);
  assert.deepEqual(wire.replies.map((reply) => [reply.status, reply.headers.get("retry-after")]), [[429, "1"], [200, null]]);
});

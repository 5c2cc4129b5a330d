// The AI SDK's provider for OpenAI-compatible endpoints: what it needs of /v1 that Cloudflare's own provider does not.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateImage, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, gate, recorded } from "./gate.js";

const provider = (fetch) => createOpenAICompatible({ name: "tollgate", baseURL: `${gate}/v1`, apiKey: "any", includeUsage: true, supportsStructuredOutputs: true, fetch });
const tollgate = provider();
const QWEN = "@cf/qwen/qwen3-30b-a3b-fp8";
const GLM = "@cf/zai-org/glm-5.3-flash";
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

for (const model of [LLAMA, GEMMA, QWEN, GLM]) {
  test(`a stream of ${model} has the usage of the whole reply`, async () => {
    const whole = await generateText({ model: tollgate(model), prompt: "Why is the sky blue?" });
    const stream = streamText({ model: tollgate(model), prompt: "Why is the sky blue?" });
    assert.equal(await stream.text, whole.text);
    const usage = await stream.usage;
    assert.deepEqual([usage.inputTokens, usage.outputTokens], [whole.usage.inputTokens, whole.usage.outputTokens]);
    assert.equal(await stream.finishReason, "stop");
  });

  test(`tools of ${model} are run in rounds, whole and streamed`, async () => {
    const asked = { model: tollgate(model), tools: { weather }, stopWhen: isStepCount(3), prompt: "Is it raining in Oslo?" };
    const { text, steps } = await generateText(asked);
    assert.ok(text && steps[0].toolResults.length === 1, JSON.stringify(steps[0].content));
    const stream = streamText(asked);
    assert.ok(await stream.text);
    assert.equal((await stream.steps)[0].toolCalls.length, 1);
  });
}

test("reasoning is told as reasoning", async () => {
  const { reasoningText } = await generateText({ model: tollgate(GLM), prompt: "Think." });
  assert.ok(reasoningText);
});

test("an object, a picture that is seen, vectors, and a picture that is made", async () => {
  const schema = z.object({ name: z.string(), age: z.number() });
  const { output } = await generateText({ model: tollgate(LLAMA), output: Output.object({ schema }), prompt: "Somebody." });
  assert.ok(schema.safeParse(output).success, JSON.stringify(output));
  const content = [{ type: "text", text: "What is this?" }, { type: "image", image: Buffer.from(PIXEL, "base64"), mediaType: "image/png" }];
  const seen = await generateText({ model: tollgate("@cf/meta/llama-3.2-11b-vision-instruct"), messages: [{ role: "user", content }] });
  assert.ok(seen.text);
  const { embeddings, usage } = await embedMany({ model: tollgate.embeddingModel("@cf/qwen/qwen3-embedding-0.6b"), values: ["a", "b"] });
  assert.ok(embeddings.length === 2 && usage.tokens > 0, JSON.stringify(usage));
  const { image } = await generateImage({ model: tollgate.imageModel("@cf/black-forest-labs/flux-1-schnell"), prompt: "a bridge", size: "1024x1024" });
  assert.equal(Buffer.from(image.uint8Array).subarray(1, 4).toString(), "PNG");
});

test("a refusal's reason is shown, and one for money is not tried again", async () => {
  const failing = provider(recorded((headers) => headers.set("x-simulate", "5006")).fetch);
  await assert.rejects(generateText({ model: failing(LLAMA), prompt: "fail" }), (error) => {
    assert.ok(APICallError.isInstance(error) && error.statusCode === 400, `${error}`);
    assert.match(error.message, /AiError/);
    return true;
  });
  const wire = recorded();
  await assert.rejects(generateText({ model: provider(wire.fetch)(PENNILESS), prompt: "spend" }), (error) => error.statusCode === 402);
  assert.equal(wire.requests.length, 1);
});

test("a turn is waited for, a stream can be left, and some go at once", async () => {
  for (const n of [1, 2]) {
    assert.ok((await generateText({ model: tollgate(ONE_A_SECOND), prompt: `turn ${n}`, maxRetries: 8 })).text);
  }
  const leaving = new AbortController();
  const stream = streamText({ model: tollgate(LLAMA), prompt: "Leave.", abortSignal: leaving.signal });
  for await (const _ of stream.textStream) leaving.abort();
  const many = await Promise.all([...Array(20).keys()].map((n) => generateText({ model: tollgate(LLAMA), prompt: `${n} at once` })));
  assert.ok(many.every(({ text }) => text));
});

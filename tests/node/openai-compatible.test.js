// The AI SDK's provider for OpenAI-compatible endpoints: what it needs of /v1 that Cloudflare's own provider does not.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateImage, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, QWEN, STALLED, STYLES, VISION, fifty, gate, left, obeyed, recorded, tries } from "./gate.js";

const at = (baseURL, more = {}) => createOpenAICompatible({
  name: "tollgate", baseURL, apiKey: "any", includeUsage: true, supportsStructuredOutputs: true, ...more,
});
const GLM = "@cf/zai-org/glm-5.3-flash";
const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Rain in ${city}.`,
});

tries("chat", async (url) => {
  for (const model of [LLAMA, GEMMA, QWEN, GLM]) {
    const { text, usage, finishReason } = await generateText({ model: at(url)(model), prompt: "Why is the sky blue?" });
    assert.ok(text && usage.inputTokens > 0 && usage.outputTokens > 0 && finishReason === "stop", JSON.stringify(usage));
  }
});

tries("streams", async (url) => {
  for (const [model, headers] of [LLAMA, GEMMA, QWEN, GLM].map((model) => [model, {}]).concat(STYLES.map((style) => [LLAMA, style]))) {
    const asked = { model: at(url)(model), prompt: "Why is the sky blue?", headers };
    const whole = await generateText(asked);
    const stream = streamText(asked);
    assert.equal(await stream.text, whole.text);
    const usage = await stream.usage;
    const counts = [usage, whole.usage].map(({ inputTokens, outputTokens }) => [inputTokens, outputTokens]);
    if (headers["x-simulate-usage"] === "none") assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0, JSON.stringify(counts));
    else assert.deepEqual(...counts, `${model} ${JSON.stringify(headers)}`);
    assert.equal(await stream.finishReason, "stop");
  }
});

tries("tools", async (url) => {
  for (const model of [LLAMA, GEMMA, QWEN, GLM]) {
    const messages = [];
    for (const city of ["Oslo", "Rome"]) {
      messages.push({ role: "user", content: `Is it raining in ${city}?` });
      const asked = { model: at(url)(model), tools: { weather }, stopWhen: isStepCount(3), messages };
      const stream = streamText(asked);
      assert.ok(await stream.text);
      assert.equal((await stream.steps)[0].toolCalls.length, 1);
      const { text, steps, response } = await generateText(asked);
      assert.ok(text && steps[0].toolResults.length === 1, JSON.stringify(steps[0].content));
      messages.push(...response.messages);
    }
  }
});

tries("structured output", async (url) => {
  const schema = z.object({ name: z.string(), age: z.number() });
  const { output } = await generateText({ model: at(url)(LLAMA), output: Output.object({ schema }), prompt: "Somebody." });
  assert.ok(schema.safeParse(output).success, JSON.stringify(output));
});

tries("embeddings", async (url) => {
  for (const model of ["@cf/baai/bge-m3", "@cf/qwen/qwen3-embedding-0.6b"]) {
    const { embeddings, usage } = await embedMany({ model: at(url).embeddingModel(model), values: ["a", "b"] });
    assert.ok(embeddings.length === 2 && usage.tokens > 0, JSON.stringify(usage));
  }
});

tries("vision", async (url) => {
  const content = [{ type: "text", text: "What is this?" }, { type: "image", image: Buffer.from(PIXEL, "base64"), mediaType: "image/png" }];
  assert.ok((await generateText({ model: at(url)(VISION), messages: [{ role: "user", content }] })).text);
});

tries("errors", async (url) => {
  for (const [simulate, status] of [["5006", 400], ["10000", 401], ["3040", 429]]) {
    const asked = { model: at(url)(LLAMA), prompt: "fail", maxRetries: 0, headers: { "x-simulate": simulate } };
    await assert.rejects(generateText(asked), (error) => {
      assert.ok(APICallError.isInstance(error) && error.statusCode === status, `${error}`);
      assert.match(error.message, /AiError/);
      return true;
    });
  }
  const wire = recorded();
  const poor = generateText({ model: at(url, { fetch: wire.fetch })(PENNILESS), prompt: "spend" });
  await assert.rejects(poor, (error) => error.statusCode === 402);
  assert.equal(wire.requests.length, 1);
});

tries("429", (url) => obeyed((prompt) => generateText({ model: at(url)(ONE_A_SECOND), prompt, maxRetries: 8 })));

tries("cancel", (url) => left(async () => {
  const leaving = new AbortController();
  const stream = streamText({ model: at(url)(LLAMA), prompt: "Leave.", abortSignal: leaving.signal, headers: STALLED });
  for await (const _ of stream.textStream) leaving.abort();
}));

tries("fifty at once", (url) => fifty(async (prompt) => (await generateText({ model: at(url)(LLAMA), prompt, maxRetries: 0 })).text));

test("reasoning is told as reasoning", async () => {
  const { reasoningText } = await generateText({ model: at(`${gate}/v1`)(GLM), prompt: "Think." });
  assert.ok(reasoningText);
});

test("a picture is made", async () => {
  const model = at(`${gate}/v1`).imageModel("@cf/black-forest-labs/flux-1-schnell");
  const { image } = await generateImage({ model, prompt: "a bridge", size: "1024x1024" });
  assert.equal(Buffer.from(image.uint8Array).subarray(1, 4).toString(), "PNG");
});

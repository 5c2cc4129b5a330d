// TanStack AI with Cloudflare's adapter over REST; its host is fixed, so `fetch` leads it here.
import assert from "node:assert/strict";
import test from "node:test";
import { createWorkersAiChat, createWorkersAiImage } from "@cloudflare/tanstack-ai";
import { chat, generateImage, toolDefinition } from "@tanstack/ai";
import { z } from "zod";
import { GEMMA, LLAMA } from "./gate.js";

const real = globalThis.fetch;
globalThis.fetch = (url, init) => {
  const address = typeof url === "string" ? url : (url.url ?? url.href);
  const here = address.replace(/^https:\/\/(api\.cloudflare\.com|gateway\.ai\.cloudflare\.com)/, process.env.TOLLGATE_URL);
  assert.notEqual(here, address, "a host that is not led to the gate");
  return real(here, init);
};

const credentials = { accountId: "023e105f4ecef8ad9ca31a8372d0c353", apiKey: "any" };
const weather = toolDefinition({
  name: "weather",
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
}).server(async ({ city }) => `Rain in ${city}.`);

async function told(options) {
  const events = [];
  for await (const event of chat(options)) events.push(event);
  const errors = events.filter(({ type }) => /ERROR/i.test(type));
  assert.deepEqual(errors, []);
  return events;
}

for (const model of [LLAMA, GEMMA]) {
  test(`a chat with ${model} streams`, async () => {
    const events = await told({
      adapter: createWorkersAiChat(model, credentials), messages: [{ role: "user", content: "Why is the sky blue?" }],
    });
    const pieces = events.filter(({ type }) => type === "TEXT_MESSAGE_CONTENT");
    assert.ok(pieces.length > 1, JSON.stringify(events).slice(0, 2000));
    const end = events.findLast(({ type }) => type === "RUN_FINISHED");
    assert.ok(end, JSON.stringify(events.at(-1)));
  });

  test(`a tool of ${model} is run and its result answered`, async () => {
    const events = await told({
      adapter: createWorkersAiChat(model, credentials), tools: [weather],
      messages: [{ role: "user", content: "Is it raining in Oslo?" }],
    });
    assert.ok(events.some(({ type, toolCallName, toolName }) => type === "TOOL_CALL_START" && (toolCallName ?? toolName) === "weather"));
    assert.ok(events.some(({ type }) => type === "TEXT_MESSAGE_CONTENT"));
  });
}

test("a picture", async () => {
  const { images } = await generateImage({
    adapter: createWorkersAiImage("@cf/black-forest-labs/flux-1-schnell", credentials), prompt: "A fox",
  });
  assert.ok(images[0].b64Json.length > 0);
});

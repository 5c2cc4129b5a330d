// ai-gateway-provider sends a list of steps to the AI Gateway's universal endpoint; its host is fixed, so `fetch` leads it here.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { createAiGateway } from "ai-gateway-provider";
import { createUnified } from "ai-gateway-provider/providers/unified";
import { LLAMA } from "./gate.js";

const real = globalThis.fetch;
const steps = [];
globalThis.fetch = async (url, init) => {
  const reply = await real(String(url).replace("https://gateway.ai.cloudflare.com", process.env.TOLLGATE_URL), init);
  steps.push(reply.headers.get("cf-aig-step"));
  return reply;
};

const gateway = createAiGateway({ accountId: "acc", gateway: "gw", apiKey: "any" });
const unified = createUnified({ apiKey: "any" });
const openai = createOpenAICompatible({ name: "openai", baseURL: "https://api.openai.com/v1", apiKey: "any" });
const [llama, gone, gpt] = [unified(`workers-ai/${LLAMA}`), unified("workers-ai/@cf/nobody/knows"), openai("gpt-test")];

test("a model of Workers AI answers", async () => {
  const { text, usage } = await generateText({ model: gateway(llama), prompt: "Why is the sky blue?" });
  assert.ok(text && usage.outputTokens > 0);
  assert.equal(steps.at(-1), "0");
});

test("the next model answers where one cannot", async () => {
  const { text } = await generateText({ model: gateway([gone, llama]), prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.equal(steps.at(-1), "1");
});

test("it streams", async () => {
  let pieces = 0;
  for await (const piece of streamText({ model: gateway([gone, llama]), prompt: "Tell me a tale." }).textStream) pieces += piece ? 1 : 0;
  assert.ok(pieces > 1);
});

test("another provider's model answers", async () => {
  const { text } = await generateText({ model: gateway([gone, gpt]), prompt: "Why is the sky blue?" });
  assert.ok(text);
  assert.equal(steps.at(-1), "1");
});

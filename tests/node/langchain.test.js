// LangChain for JavaScript: the base URL is the one line that changes.
import assert from "node:assert/strict";
import test from "node:test";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, gate } from "./gate.js";

const configuration = { baseURL: `${gate}/v1` };
const chat = (model, more = {}) => new ChatOpenAI({ model, apiKey: "any", configuration, ...more });
const weather = tool(async ({ city }) => `Rain in ${city}.`, {
  name: "weather", description: "The weather of a city", schema: z.object({ city: z.string() }),
});

for (const model of [LLAMA, GEMMA]) {
  test(`${model} answers alike, whole and in pieces, with one usage`, async () => {
    const whole = await chat(model).invoke("Why is the sky blue?");
    let streamed;
    for await (const chunk of await chat(model, { streamUsage: true }).stream("Why is the sky blue?")) {
      streamed = streamed ? streamed.concat(chunk) : chunk;
    }
    assert.ok(whole.content);
    assert.equal(streamed.content, whole.content);
    // Usages are added up: told twice, it would be too much.
    assert.equal(streamed.usage_metadata.total_tokens, whole.usage_metadata.total_tokens);
  });

  test(`${model} calls a tool and goes on`, async () => {
    const bound = chat(model).bindTools([weather]);
    const rounds = [new HumanMessage("weather?")];
    const said = await bound.invoke(rounds);
    const [call] = said.tool_calls;
    assert.equal(call.name, "weather");
    rounds.push(said, new ToolMessage({ content: await weather.invoke(call.args), tool_call_id: call.id }));
    assert.ok((await bound.invoke(rounds)).content);
  });
}

test("structured output has its fields", async () => {
  const person = z.object({ name: z.string(), age: z.number() });
  const told = await chat(LLAMA).withStructuredOutput(person, { method: "jsonSchema" }).invoke("somebody");
  assert.ok(person.parse(told));
});

test("embeddings come in their order", async () => {
  const embeddings = new OpenAIEmbeddings({ model: "@cf/baai/bge-m3", apiKey: "any", configuration });
  const [a, b] = await embeddings.embedDocuments(["a", "b"]);
  assert.ok(a.length > 100 && a.some((number) => number !== 0));
  assert.notDeepEqual(a, b);
});

test("a budget that is used up is not asked again, and a limit that time mends is", async () => {
  await assert.rejects(chat(PENNILESS, { maxRetries: 3 }).invoke("hello"), (error) => error.status === 402);
  for (const n of [0, 1]) {
    assert.ok((await chat(ONE_A_SECOND, { maxRetries: 8 }).invoke(`turn ${n}`)).content);
  }
});

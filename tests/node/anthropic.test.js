// Anthropic's own client: whole replies, streams, tools, refusals.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, STALLED, STYLES, VISION, fifty, gate, left, obeyed, tries as tried } from "./gate.js";

const tries = (thing, cell) => tried(thing, cell, [gate, `${process.env.TOLLGATE_TWIN}/client/v4/accounts/acc/ai`]);
const at = (baseURL, maxRetries = 0) => new Anthropic({ baseURL, apiKey: "any", maxRetries });
const ask = (content) => [{ role: "user", content }];
const defaults = { model: LLAMA, max_tokens: 256 };
const said = (url, body, headers = {}, retries = 0) => at(url, retries).messages.create({ ...defaults, ...body }, { headers });
const schemaOf = (properties) => ({ type: "object", properties, required: Object.keys(properties) });
const tools = [{ name: "weather", description: "Tells the weather.", input_schema: schemaOf({ city: { type: "string" } }) }];

tries("chat", async (url) => {
  const { data, response } = await at(url).messages.create({ ...defaults, messages: ask("Why is the sky blue?") }).withResponse();
  assert.equal(data.type, "message");
  assert.ok(data.content[0].text.length > 0);
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
  assert.ok(Number(response.headers.get("x-tollgate-neurons")) > 0);
});

tries("streams", async (url) => {
  for (const [model, headers] of [[LLAMA, {}], [GEMMA, {}], ...STYLES.map((style) => [LLAMA, style])]) {
    const body = { ...defaults, model, messages: ask("A tale.") };
    const whole = await said(url, body, headers);
    let text = "";
    const stream = at(url).messages.stream(body, { headers }).on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, text);
    assert.equal(whole.content[0].text, text);
    const [told, once] = [final.usage.output_tokens, whole.usage.output_tokens];
    assert.ok(told === once || (headers["x-simulate-usage"] === "none" && told > 0), `${JSON.stringify(headers)}: ${told}, ${once}`);
  }
});

tries("tools", async (url) => {
  const messages = [];
  for (const city of ["Oslo", "Rome"]) {
    messages.push(...ask(`Is it raining in ${city}?`));
    const called = await said(url, { messages, tools });
    assert.equal(called.stop_reason, "tool_use");
    const use = called.content.at(-1);
    assert.equal(use.name, "weather");
    const streamed = await at(url).messages.stream({ ...defaults, messages, tools }).finalMessage();
    assert.deepEqual(streamed.content.at(-1).input, use.input);
    messages.push({ role: "assistant", content: called.content });
    messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "Sunny." }] });
    const answered = await said(url, { messages, tools });
    assert.equal(answered.stop_reason, "end_turn");
    messages.push({ role: "assistant", content: answered.content });
  }
});

tries("structured output", async (url) => {
  // As Anthropic has it: a tool that the model is made to call.
  const person = { name: "person", description: "Tells of a person.", input_schema: schemaOf({ name: { type: "string" }, age: { type: "integer" } }) };
  const told = await said(url, { messages: ask("somebody"), tools: [person], tool_choice: { type: "tool", name: "person" } });
  assert.deepEqual(Object.keys(told.content.at(-1).input).sort(), ["age", "name"]);
});

tries("vision", async (url) => {
  const picture = { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } };
  const seen = await said(url, { model: VISION, messages: ask([picture, { type: "text", text: "What is it?" }]) });
  assert.ok(seen.usage.input_tokens > 1000, "a picture is read, too");
});

tries("errors", async (url) => {
  const messages = ask("x");
  const simulate = (code) => said(url, { messages }, { "x-simulate": code });
  await assert.rejects(simulate("3040"), (error) => error.status === 429 && error.error.error.type === "overloaded_error");
  await assert.rejects(simulate("10000"), Anthropic.AuthenticationError);
  if (url === gate) {
    await assert.rejects(said(url, { messages, model: "" }), (error) => error instanceof Anthropic.BadRequestError && error.error.type === "error");
  }
  const broken = at(url).messages.stream({ ...defaults, messages }, { headers: { "x-simulate": "stream-error" } });
  await assert.rejects(broken.finalMessage(), Anthropic.APIError);
  await assert.rejects(said(url, { messages, model: PENNILESS }, {}, 3), (error) => error.status === 402 && error.error.error.type === "billing_error");
});

tries("429", (url) => obeyed((text) => said(url, { model: ONE_A_SECOND, messages: ask(text) }, {}, 8)));

tries("cancel", (url) => left(async () => {
  const stream = await at(url).messages.create({ ...defaults, messages: ask("leave"), stream: true }, { headers: STALLED });
  for await (const _ of stream) break;
  stream.controller.abort();
}));

tries("fifty at once", (url) => fifty(async (text) => (await said(url, { messages: ask(text) })).content[0].text));

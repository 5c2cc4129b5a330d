// The real OpenAI client: its base URL is the one line that changes.
import assert from "node:assert/strict";
import test from "node:test";
import {
  GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, QWEN, STALLED, STYLES, VISION, fifty, gate, left, obeyed, pausesOf, recorded, tries,
} from "./gate.js";

// Three major versions are in use; each is run with this file.
const { default: OpenAI } = await import(process.env.TOLLGATE_OPENAI ?? "openai");
const client = new OpenAI({ baseURL: `${gate}/v1`, apiKey: "any", maxRetries: 0 });
const ask = (content) => [{ role: "user", content }];
const tools = [{
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

const at = (baseURL, maxRetries = 0) => new OpenAI({ baseURL, apiKey: "any", maxRetries });
const said = async (url, body, headers = {}, retries = 0) =>
  (await at(url, retries).chat.completions.create({ model: LLAMA, ...body }, { headers })).choices[0].message;

tries("chat", async (url) => {
  for (const model of [LLAMA, GEMMA, QWEN]) {
    const asked = at(url).chat.completions.create({ model, messages: ask("Why is the sky blue?") });
    const { data, response } = await asked.withResponse();
    assert.ok(data.choices[0].message.content);
    assert.ok(data.usage.prompt_tokens > 0 && data.usage.completion_tokens > 0);
    assert.ok(Number(response.headers.get("x-tollgate-neurons")) > 0);
  }
});

tries("streams", async (url) => {
  for (const [model, headers] of [[LLAMA, {}], [GEMMA, {}], [QWEN, {}], ...STYLES.map((style) => [LLAMA, style])]) {
    const asked = { model, messages: ask("Tell me a tale.") };
    const whole = await at(url).chat.completions.create(asked, { headers });
    let [text, pieces] = ["", 0];
    // The loop that OpenAI documents, and the client's own accumulation.
    for await (const chunk of await at(url).chat.completions.create({ ...asked, stream: true }, { headers })) {
      text += chunk.choices[0].delta.content ?? "";
      pieces += 1;
    }
    const stream = at(url).chat.completions.stream({ ...asked, stream_options: { include_usage: true } }, { headers });
    const final = await stream.finalChatCompletion();
    assert.ok(pieces > 1 && text === whole.choices[0].message.content, `${pieces} pieces: ${text}`);
    assert.equal(final.choices[0].message.content, text);
    const [told, once] = [final.usage.completion_tokens, whole.usage.completion_tokens];
    assert.ok(told === once || (headers["x-simulate-usage"] === "none" && told > 0), `${JSON.stringify(headers)}: ${told}, ${once}`);
  }
});

tries("tools", async (url) => {
  for (const model of [LLAMA, GEMMA, QWEN]) {
    const messages = [];
    for (const city of ["Oslo", "Rome"]) {
      messages.push(...ask(`What is the weather in ${city}?`));
      const called = await said(url, { model, messages, tools });
      const [call] = called.tool_calls;
      assert.equal(call.function.name, "weather");
      assert.ok("city" in JSON.parse(call.function.arguments), call.function.arguments);
      const streamed = await at(url).chat.completions.stream({ model, messages, tools }).finalMessage();
      assert.equal(streamed.tool_calls[0].function.arguments, call.function.arguments);
      messages.push(called, { role: "tool", tool_call_id: call.id, content: "Rain." });
      messages.push(await said(url, { model, messages, tools }));
      assert.ok(messages.at(-1).content);
    }
  }
});

tries("structured output", async (url) => {
  const schema = { type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"] };
  const response_format = { type: "json_schema", json_schema: { name: "person", schema } };
  for (const model of [LLAMA, GEMMA, QWEN]) {
    const person = JSON.parse((await said(url, { model, messages: ask("somebody"), response_format })).content);
    assert.deepEqual(Object.keys(person).sort(), ["age", "name"]);
  }
});

tries("embeddings", async (url) => {
  const input = ["a bridge", "a river"];
  for (const model of ["@cf/baai/bge-m3", "@cf/qwen/qwen3-embedding-0.6b"]) {
    // Without a word on it, the client asks for base64.
    const [floats, encoded] = await Promise.all(["float", undefined].map((encoding_format) =>
      at(url).embeddings.create({ model, input, encoding_format })));
    assert.ok(floats.usage.prompt_tokens > 0 && floats.data.length === 2, model);
    encoded.data[1].embedding.forEach((number, n) => assert.ok(Math.abs(number - floats.data[1].embedding[n]) < 1e-6, `${model} ${n}`));
    assert.equal(encoded.data[1].embedding.length, 1024);
  }
});

tries("vision", async (url) => {
  const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } };
  const messages = [{ role: "user", content: [{ type: "text", text: "What is this?" }, picture] }];
  for (const model of [VISION, GEMMA]) assert.ok((await said(url, { model, messages })).content);
});

tries("errors", async (url) => {
  const wrong = [
    // The gate itself refuses this one, on every path.
    ...(url === `${gate}/v1` ? [[{ model: "" }, {}, OpenAI.BadRequestError]] : []),
    [{ model: "@cf/nobody/knows" }, {}, OpenAI.BadRequestError],
    [{}, { "x-simulate": "10000" }, OpenAI.AuthenticationError],
    [{}, { "x-simulate": "3040" }, OpenAI.RateLimitError],
    [{}, { "x-simulate": "5035;form=bare" }, OpenAI.PermissionDeniedError],
    [{}, { "x-simulate": "502;form=html" }, OpenAI.InternalServerError],
  ];
  for (const [body, headers, kind] of wrong) {
    const asked = said(url, { messages: ask("x"), ...body }, headers);
    await assert.rejects(asked, (error) => error instanceof kind && error.message.length > 0 && typeof error.type === "string",
      JSON.stringify([body, headers]));
  }
  await assert.rejects(said(url, { model: PENNILESS, messages: ask("x") }, {}, 5), (error) =>
    error.status === 402 && error.type === "insufficient_quota");
});

tries("429", (url) => obeyed((text) => said(url, { model: ONE_A_SECOND, messages: ask(text) }, {}, 8)));

tries("cancel", (url) => left(async () => {
  const stream = await at(url).chat.completions.create({ model: LLAMA, messages: ask("leave"), stream: true }, { headers: STALLED });
  for await (const _ of stream) break;
  stream.controller.abort();
}));

tries("fifty at once", (url) => fifty(async (text) => (await said(url, { messages: ask(text) })).content));

test("the client's own runner of tools ends with an answer", async () => {
  const weather = {
    type: "function",
    function: { ...tools[0].function, function: () => "Rain.", parse: JSON.parse },
  };
  const runner = client.chat.completions.runTools({ model: LLAMA, messages: ask("And in Rome?"), tools: [weather], stream: true });
  assert.ok(await runner.finalContent());
});

test("a response, whole and streamed", async () => {
  const whole = await client.responses.create({ model: LLAMA, input: "hello" });
  assert.ok(whole.output_text);
  let text = "";
  for await (const event of await client.responses.create({ model: LLAMA, input: "hello again", stream: true })) {
    text += event.type === "response.output_text.delta" ? event.delta : "";
  }
  assert.ok(text);
});

test("what a retry cannot mend is not retried: x-should-retry is false", async () => {
  const wire = recorded();
  // An account of its own: it is held back until midnight from here on.
  const other = new OpenAI({ baseURL: `${gate}/client/v4/accounts/spent/ai/v1`, apiKey: "any", maxRetries: 3, fetch: wire.fetch });
  const spend = (headers) => other.chat.completions.create({ model: LLAMA, messages: ask("free?") }, { headers });
  for (const headers of [{ "x-simulate": "4006" }, {}]) {
    await assert.rejects(spend(headers), OpenAI.RateLimitError);
  }
  assert.equal(wire.requests.length, 2, "one request for each call");
  assert.deepEqual(wire.replies.map((reply) => reply.headers.get("x-should-retry")), ["false", "false"]);
});

test("what a retry can mend is retried", async () => {
  const wire = recorded((headers, n) => n === 0 && headers.set("x-simulate", "3040"));
  const patient = new OpenAI({ baseURL: `${gate}/v1`, apiKey: "any", maxRetries: 2, fetch: wire.fetch });
  const { choices } = await patient.chat.completions.create({ model: LLAMA, messages: ask("room now?") });
  assert.ok(choices[0].message.content);
  assert.deepEqual(wire.replies.map((reply) => reply.status), [429, 200]);
});

test("a refusal says in retry-after-ms when to come back, and the client comes then", async () => {
  const wire = recorded();
  const patient = new OpenAI({ baseURL: `${gate}/v1`, apiKey: "any", maxRetries: 8, fetch: wire.fetch });
  const refused = () => wire.replies.filter((reply) => reply.status === 429);
  const pauses = await pausesOf(async () => {
    // On a slow machine a call may take longer than its turn.
    for (let n = 0; n < 20 && refused().length === 0; n += 1) {
      await patient.chat.completions.create({ model: ONE_A_SECOND, messages: ask(`call ${n}`) });
    }
  });
  const refusals = refused();
  assert.ok(refusals.length > 0, "no call came before its turn");
  for (const { headers } of refusals) {
    assert.equal(headers.get("x-should-retry"), "true");
    const asked = Number(headers.get("retry-after-ms"));
    assert.ok(asked > 0 && pauses.includes(asked), `${asked} is not among the pauses ${pauses}`);
  }
});

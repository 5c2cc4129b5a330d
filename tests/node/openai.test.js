// The real OpenAI client: its base URL is the one line that changes.
import assert from "node:assert/strict";
import test from "node:test";
import { GEMMA, LLAMA, ONE_A_SECOND, gate, pausesOf, recorded } from "./gate.js";

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

test("a chat has an answer, its usage and its cost", async () => {
  const asked = client.chat.completions.create({ model: LLAMA, messages: ask("Why is the sky blue?") });
  const { data, response } = await asked.withResponse();
  assert.ok(data.choices[0].message.content);
  assert.ok(data.usage.prompt_tokens > 0 && data.usage.completion_tokens > 0);
  assert.ok(Number(response.headers.get("x-tollgate-neurons")) > 0);
});

for (const model of [LLAMA, GEMMA]) {
  test(`a stream of ${model} comes in pieces, with its usage`, async () => {
    const stream = await client.chat.completions.create({
      model, messages: ask("Tell me a tale."), stream: true, stream_options: { include_usage: true },
    });
    let [text, pieces, usage] = ["", 0, null];
    for await (const chunk of stream) {
      const delta = chunk.choices?.[0]?.delta?.content ?? "";
      text += delta;
      pieces += delta ? 1 : 0;
      usage = chunk.usage ?? usage;
    }
    assert.ok(text && pieces > 1, `${pieces} pieces: ${text}`);
    assert.ok(usage.completion_tokens > 0, JSON.stringify(usage));
  });
}

test("a tool is called, and its result answered", async () => {
  const messages = ask("What is the weather in Oslo?");
  const { choices } = await client.chat.completions.create({ model: LLAMA, messages, tools });
  const [call] = choices[0].message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.ok("city" in JSON.parse(call.function.arguments), call.function.arguments);
  const result = { role: "tool", tool_call_id: call.id, content: "Rain." };
  const next = await client.chat.completions.create({
    model: LLAMA, messages: [...messages, choices[0].message, result], tools,
  });
  assert.ok(next.choices[0].message.content);
});

test("the client's own runner of tools ends with an answer", async () => {
  const weather = {
    type: "function",
    function: { ...tools[0].function, function: () => "Rain.", parse: JSON.parse },
  };
  const runner = client.chat.completions.runTools({ model: LLAMA, messages: ask("And in Rome?"), tools: [weather], stream: true });
  assert.ok(await runner.finalContent());
});

test("embeddings are as many as the texts, in either encoding", async () => {
  const input = ["a bridge", "a river"];
  for (const encoding_format of ["float", undefined]) {
    const { data } = await client.embeddings.create({ model: "@cf/baai/bge-m3", input, encoding_format });
    assert.deepEqual(data.map((item) => item.embedding.length), [1024, 1024], `encoding_format ${encoding_format}`);
  }
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

test("errors are the client's own kinds, and say what is wrong", async () => {
  const wrong = [
    [{ model: "", messages: ask("x") }, {}, OpenAI.BadRequestError],
    [{ model: "@cf/nobody/knows", messages: ask("x") }, {}, OpenAI.BadRequestError],
    [{ model: LLAMA, messages: ask("x") }, { "x-simulate": "10000" }, OpenAI.AuthenticationError],
    [{ model: LLAMA, messages: ask("x") }, { "x-simulate": "3021" }, OpenAI.RateLimitError],
    [{ model: LLAMA, messages: ask("x") }, { "x-simulate": "502;form=html" }, OpenAI.InternalServerError],
  ];
  for (const [body, headers, kind] of wrong) {
    const asked = client.chat.completions.create(body, { headers: { "cf-aig-skip-cache": "true", ...headers } });
    await assert.rejects(asked, (error) => error instanceof kind && error.message.length > 0, `${JSON.stringify([body, headers])}`);
  }
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

// The real client of Cloudflare's API: its base URL is the one line that changes.
import assert from "node:assert/strict";
import test from "node:test";
import Cloudflare from "cloudflare";
import { LLAMA, gate, recorded, silence } from "./gate.js";

const account_id = "023e105f4ecef8ad9ca31a8372d0c353";
const baseURL = `${gate}/client/v4`;
const client = new Cloudflare({ baseURL, apiToken: "any", maxRetries: 0 });

test("text", async () => {
  const result = await client.ai.run(LLAMA, { account_id, prompt: "Why is the sky blue?" });
  assert.ok(result.response && result.usage.completion_tokens > 0, JSON.stringify(result));
});

test("a call tells what it cost", async () => {
  const reply = await client.ai.run(LLAMA, { account_id, prompt: "What is it worth?" }).asResponse();
  assert.ok(Number(reply.headers.get("x-tollgate-neurons")) > 0);
});

test("embeddings", async () => {
  const { shape, data } = await client.ai.run("@cf/baai/bge-base-en-v1.5", { account_id, text: ["a bridge", "a river"] });
  assert.deepEqual(shape, [2, 768]);
  assert.deepEqual(data.map((vector) => vector.length), shape.slice(1).concat(768));
});

test("an image", async () => {
  const { image } = await client.ai.run("@cf/black-forest-labs/flux-1-schnell", { account_id, prompt: "a bridge", steps: 4 });
  assert.equal(Buffer.from(image, "base64").subarray(1, 4).toString(), "PNG");
});

test("a recording", async () => {
  const audio = Buffer.from(silence(3)).toString("base64");
  const { text, transcription_info } = await client.ai.run("@cf/openai/whisper-large-v3-turbo", { account_id, audio });
  assert.ok(text);
  assert.equal(transcription_info.duration, 3);
});

test("a stream's bytes", async () => {
  const reply = await client.ai.run(LLAMA, { account_id, prompt: "a tale", stream: true }).asResponse();
  assert.match(await reply.text(), /data: \[DONE\]\n\n$/);
});

test("what is not inference passes through: the list of models", async () => {
  const names = [];
  for await (const model of client.ai.models.list({ account_id })) {
    names.push(model.name);
  }
  assert.ok(names.includes(LLAMA), `${names.length} models`);
});

test("errors are the client's own kinds, with the vendor's code", async () => {
  const kinds = [
    ["5006", 5006, Cloudflare.BadRequestError],
    ["10000", 10000, Cloudflare.AuthenticationError],
    ["5035", 5035, Cloudflare.PermissionDeniedError],
    ["3042", 3042, Cloudflare.NotFoundError],
    ["5012", 5012, Cloudflare.UnprocessableEntityError],
    ["3021", 3021, Cloudflare.RateLimitError],
    ["3007", 3007, Cloudflare.APIError],
    ["500", undefined, Cloudflare.InternalServerError],
  ];
  for (const [simulate, code, kind] of kinds) {
    const headers = { "x-simulate": simulate, "cf-aig-skip-cache": "true" };
    await assert.rejects(client.ai.run(LLAMA, { account_id, prompt: "x" }, { headers }), (error) => {
      assert.ok(error instanceof kind, `${simulate}: ${error.constructor.name}`);
      assert.equal(error.errors[0].code, code);
      assert.ok(error.errors[0].message);
      return true;
    });
  }
});

test("the gate's own errors have the same form", async () => {
  const nameless = client.post(`/accounts/${account_id}/ai/run`, { body: { prompt: "x" } });
  await assert.rejects(nameless, (error) => {
    assert.ok(error instanceof Cloudflare.BadRequestError, error.constructor.name);
    assert.match(error.errors[0].message, /no model is named/);
    return true;
  });
});

test("used-up free neurons are not retried in vain", async () => {
  const wire = recorded();
  const eager = new Cloudflare({ baseURL, apiToken: "any", maxRetries: 3, fetch: wire.fetch });
  const spend = (headers) => eager.ai.run(LLAMA, { account_id: "spent-too", prompt: "free?" }, { headers });
  for (const headers of [{ "x-simulate": "3036" }, {}]) {
    await assert.rejects(spend(headers), Cloudflare.RateLimitError);
  }
  assert.equal(wire.requests.length, 2, "one request for each call");
});

// Anthropic's own client: whole replies, streams, tools, refusals.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import Anthropic from '@anthropic-ai/sdk'

const baseURL = process.env.TOLLGATE_URL
const client = new Anthropic({ baseURL, apiKey: 'any', maxRetries: 0 })
const model = '@cf/meta/llama-3.2-1b-instruct'
const messages = [{ role: 'user', content: 'Why is the sky blue?' }]
const input_schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const tools = [{ name: 'weather', description: 'Tells the weather.', input_schema }]

test('a message is answered, and tells its cost', async () => {
  const { data, response } = await client.messages.create({ model, max_tokens: 64, messages }).withResponse()
  assert.equal(data.type, 'message')
  assert.ok(data.content[0].text.length > 0)
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0)
  assert.ok(Number(response.headers.get('x-tollgate-neurons')) > 0)
})

test('a stream ends as a whole message', async () => {
  let text = ''
  const stream = client.messages.stream({ model, max_tokens: 64, messages }).on('text', (piece) => (text += piece))
  const final = await stream.finalMessage()
  assert.equal(final.content[0].text, text)
  assert.ok(final.usage.output_tokens > 1)
})

test('a tool is called, whole and streamed', async () => {
  const asked = { model, max_tokens: 256, messages, tools }
  const whole = await client.messages.create(asked)
  assert.equal(whole.stop_reason, 'tool_use')
  const use = whole.content.at(-1)
  assert.equal(use.name, 'weather')
  const streamed = await client.messages.stream(asked).finalMessage()
  assert.deepEqual(streamed.content.at(-1).input, use.input)
  const result = { type: 'tool_result', tool_use_id: use.id, content: 'Sunny.' }
  const told = [...messages, { role: 'assistant', content: whole.content }, { role: 'user', content: [result] }]
  assert.equal((await client.messages.create({ ...asked, messages: told })).stop_reason, 'end_turn')
})

test('refusals are those that the client knows', async () => {
  const ask = (simulate, more = {}) =>
    client.messages.create({ model, max_tokens: 8, messages, ...more }, { headers: { 'x-simulate': simulate } })
  await assert.rejects(ask('3021'), (error) => error instanceof Anthropic.RateLimitError && error.error.error.type === 'rate_limit_error')
  await assert.rejects(ask('10000'), Anthropic.AuthenticationError)
  await assert.rejects(ask('', { model: '' }), (error) => error instanceof Anthropic.BadRequestError && error.error.type === 'error')
  await assert.rejects(client.messages.stream({ model, max_tokens: 8, messages }, { headers: { 'x-simulate': 'stream-error' } }).finalMessage(), Anthropic.APIError)
})

"""Generated calls of /v1, each reply and chunk read by OpenAI's own models in strict mode; and the client's own ways with them."""
import asyncio
import base64
import json
import os
import random
import struct

import httpx
import openai
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, Model, ModerationCreateResponse
from openai.types.audio import TranscriptionVerbose
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, QWEN, V1, VISION, WEATHER, ask, see

CASES = int(os.environ.get("TOLLGATE_CASES", "150"))
# What the gate adds to OpenAI's fields: reasoning, the vendor's word on the cost, and its own mark.
OURS = {"reasoning", "reasoning_content", "neurons", "x_tollgate"}
http = httpx.Client(base_url=V1, headers={"authorization": "Bearer any"}, timeout=60)
dice = random.Random(7)


def strict(kind, value, ours=OURS):
    read = kind.model_validate_json(json.dumps(value), strict=True)
    beyond(read, ours)
    return read


def beyond(read, ours):
    """No model of OpenAI's may hold a field that is neither OpenAI's nor the gate's."""
    if isinstance(read, list):
        return [beyond(item, ours) for item in read]
    if hasattr(read, "model_fields"):
        assert set(read.model_extra or {}) <= ours, (type(read), read.model_extra)
        return [beyond(getattr(read, name), ours) for name in type(read).model_fields]


def events(reply):
    assert reply.headers["content-type"].startswith("text/event-stream"), (reply.headers, reply.text)
    data = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-1]
    return [json.loads(chunk) for chunk in data[:-1]]


def chat(n):
    body = {"model": dice.choice(MODELS + (LLAMA, VISION)), "messages": dice.choice([ask(f"case {n}"), see()])}
    for field, value in (("tools", [WEATHER]), ("response_format", PERSON), ("max_tokens", dice.randint(1, 60)),
                         ("temperature", dice.random()), ("seed", n)):
        if dice.random() < 0.3:
            body[field] = value
    headers = {"x-simulate-usage": dice.choice(["end", "running", "increments", "none"])} if dice.random() < 0.7 else {}
    asked = dice.random() < 0.5
    if dice.random() < 0.7:
        body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if asked else {})
    reply = http.post("/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, (body, reply.text)
    if "stream" not in body:
        whole = strict(ChatCompletion, reply.json())
        assert whole.usage and isinstance(whole.choices[0].message.content, (str, type(None))), reply.text
        return
    chunks = events(reply)
    read = [strict(ChatCompletionChunk, chunk) for chunk in chunks]
    assert sum(chunk.usage is not None for chunk in read) == asked, (body, headers, reply.text)
    assert all(("usage" in chunk) == asked for chunk in chunks), reply.text
    assert len({chunk.id for chunk in read}) == 1 and (read[-1].choices == []) == asked, reply.text
    ends = [choice.finish_reason for chunk in read for choice in chunk.choices if choice.finish_reason]
    assert len(ends) == 1, (body, ends)


def embeddings(n):
    body = {"model": dice.choice([BGE, QWEN]), "input": [f"text {n} {i}" for i in range(dice.randint(1, 4))]}
    floats = strict(CreateEmbeddingResponse, http.post("/embeddings", json=body).json())
    encoded = http.post("/embeddings", json=body | {"encoding_format": "base64"}).json()
    for vector, item in zip(floats.data, encoded["data"], strict=True):
        told = struct.unpack(f"<{len(vector.embedding)}f", base64.b64decode(item["embedding"]))
        assert all(abs(a - b) < 1e-6 for a, b in zip(told, vector.embedding, strict=True))
    assert floats.usage.prompt_tokens > 0


for n in range(CASES):
    (embeddings if n % 10 == 0 else chat)(n)

client = openai.OpenAI(base_url=V1, api_key="any", max_retries=0)
strict(Completion, http.post("/completions", json={"model": LLAMA, "prompt": "hello"}).json())
for chunk in client.completions.create(model=LLAMA, prompt="hello", stream=True):
    beyond(chunk, OURS)
picture = {"model": "@cf/black-forest-labs/flux-1-schnell", "prompt": "a bridge"}
strict(ImagesResponse, http.post("/images/generations", json=picture).json())
strict(ModerationCreateResponse, http.post("/moderations", json={"input": "hello"}).json())
for model in client.models.list():
    strict(Model, client.models.retrieve(model.id).model_dump(include={"id", "object", "created", "owned_by"}))
speech = client.audio.speech.create(model="@cf/deepgram/aura-1", input="mind the gap", voice="nova").read()
heard = client.audio.transcriptions.create(model="@cf/openai/whisper", file=("a.mp3", speech), response_format="verbose_json")
assert isinstance(heard, TranscriptionVerbose) and heard.text and heard.segments, heard
assert client.audio.translations.create(model="@cf/openai/whisper-large-v3-turbo", file=("a.mp3", speech)).text

# OpenAI's documented loop, and its own accumulation of a stream.
for model in MODELS:
    text = ""
    for chunk in client.chat.completions.create(model=model, messages=ask("loop"), stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text, model
    with client.chat.completions.stream(model=model, messages=ask("loop"), stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text and final.usage.completion_tokens < 1000, (model, final.usage)
    rounds = ask("weather?")
    for _ in range(2):
        said = client.chat.completions.create(model=model, messages=rounds, tools=[WEATHER]).choices[0]
        rounds += [said.message.model_dump(exclude_none=True)]
        if said.finish_reason == "tool_calls":
            call = said.message.tool_calls[0]
            assert "city" in json.loads(call.function.arguments)
            rounds += [{"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    assert said.finish_reason == "stop" and said.message.content, said

for status, kind in (("3021", openai.RateLimitError), ("5035;form=bare", openai.PermissionDeniedError), ("5006", openai.BadRequestError)):
    try:
        client.chat.completions.create(model=LLAMA, messages=ask(status), extra_headers={"x-simulate": status, "cf-aig-skip-cache": "true"})
        raise AssertionError(f"{status} was answered")
    except kind as error:
        assert error.code == status[:4] and error.type and "AiError" in error.message or "5035" in error.message, error
try:
    openai.OpenAI(base_url=V1, api_key="any", max_retries=5).chat.completions.create(model=PENNILESS, messages=ask())
    raise AssertionError("a budget of nothing was spent")
except openai.APIStatusError as error:
    assert (error.status_code, error.type) == (402, "insufficient_quota"), error


async def some_at_once():
    many = openai.AsyncOpenAI(base_url=V1, api_key="any", max_retries=0)
    replies = await asyncio.gather(*(many.chat.completions.create(model=LLAMA, messages=ask(f"{n} at once")) for n in range(50)))
    assert len({reply.choices[0].message.content for reply in replies}) > 1
    stream = await many.chat.completions.create(model=LLAMA, messages=ask("leave"), stream=True)
    await anext(aiter(stream))
    await stream.close()
    patient = openai.AsyncOpenAI(base_url=V1, api_key="any", max_retries=8)
    for n in range(2):
        assert (await patient.chat.completions.create(model=ONE_A_SECOND, messages=ask(f"turn {n}"))).choices


asyncio.run(some_at_once())
print(f"openai {openai.__version__}: {CASES} generated calls hold")

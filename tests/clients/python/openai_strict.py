"""Generated calls of /v1, each reply and chunk read by OpenAI's own models in strict mode; and the client's own ways with them."""
import asyncio
import json
import os

import openai
from openai.types import Model
from openai.types.audio import TranscriptionVerbose

import generated_calls
from gate import LLAMA, MODELS, ONE_A_SECOND, PENNILESS, V1, WEATHER, ask
from generated_calls import OURS, beyond, strict

CASES = int(os.environ.get("TOLLGATE_CASES", "120"))
generated_calls.run(CASES)

client = openai.OpenAI(base_url=V1, api_key="any", max_retries=0)
for chunk in client.completions.create(model=LLAMA, prompt="hello", stream=True):
    beyond(chunk, OURS)
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

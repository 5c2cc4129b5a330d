"""The OpenAI client for Python."""
import asyncio
import json

import openai

from gate import (BGE, GEMMA, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, QWEN, STALLED, STYLES, VISION, WEATHER, ask, fails, harness,
                  left, obeyed, see, tries)


def client(at, **more):
    return openai.OpenAI(base_url=at, api_key="any", **{"max_retries": 0, **more})


def said(at, messages, model=LLAMA, retries=0, **more):
    return client(at, max_retries=retries).chat.completions.create(model=model, messages=messages, **more).choices[0].message


@tries("chat")
def chat(at):
    for model in MODELS:
        whole = client(at).chat.completions.create(model=model, messages=ask())
        assert whole.choices[0].message.content and whole.usage.completion_tokens > 0, whole


@tries("streams")
def streams(at):
    for model, headers in [(model, {}) for model in MODELS] + [(LLAMA, style) for style in STYLES]:
        asked = dict(model=model, messages=ask("a tale"), extra_headers=headers)
        whole = client(at).chat.completions.create(**asked)
        # The loop that OpenAI documents, and the client's own accumulation.
        text = ""
        for chunk in client(at).chat.completions.create(stream=True, **asked):
            text += chunk.choices[0].delta.content or ""
        with client(at).chat.completions.stream(stream_options={"include_usage": True}, **asked) as stream:
            final = stream.get_final_completion()
        assert text == final.choices[0].message.content == whole.choices[0].message.content, (model, headers, text)
        assert final.usage.total_tokens > 0, (headers, final.usage)
        assert "none" in headers.values() or final.usage.completion_tokens == whole.usage.completion_tokens, (headers, final.usage)


@tries("tools")
def tools(at):
    for model in MODELS:
        rounds = []
        for city in ("Oslo", "Rome"):
            rounds += ask(f"weather in {city}?")
            called = said(at, rounds, model, tools=[WEATHER])
            (call,) = called.tool_calls
            assert call.function.name == "weather" and "city" in json.loads(call.function.arguments), called
            rounds += [called.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
            with client(at).chat.completions.stream(model=model, messages=rounds, tools=[WEATHER]) as stream:
                answer = stream.get_final_completion().choices[0].message
            assert answer.content and not answer.tool_calls, answer
            rounds += [{"role": "assistant", "content": answer.content}]


@tries("structured output")
def structured(at):
    for model in MODELS:
        person = json.loads(said(at, ask("somebody"), model, response_format=PERSON).content)
        assert set(person) == {"name", "age"}, person


@tries("embeddings")
def embeddings(at):
    for model in (BGE, QWEN):
        told = [client(at).embeddings.create(model=model, input=["a", "b"], **more) for more in ({}, {"encoding_format": "float"})]
        assert all(len(reply.data) == 2 and reply.usage.prompt_tokens > 0 for reply in told), model
        # Without a word on it, the client asks for base64.
        assert all(abs(a - b) < 1e-6 for a, b in zip(told[0].data[1].embedding, told[1].data[1].embedding, strict=True)), model


@tries("vision")
def vision(at):
    assert said(at, see(), VISION).content and said(at, see(), GEMMA).content


@tries("errors")
def errors(at):
    for simulate, kind in (("3040", openai.RateLimitError), ("5035;form=bare", openai.PermissionDeniedError),
                           ("5006", openai.BadRequestError), ("10000", openai.AuthenticationError),
                           ("502;form=html", openai.InternalServerError)):
        error = fails(kind, lambda: said(at, ask(simulate), extra_headers={"x-simulate": simulate}))
        assert error.type and error.message and (error.code == simulate.split(";")[0] or kind is openai.InternalServerError), error
    fails(openai.BadRequestError, lambda: said(at, ask(), "@cf/nobody/knows"))
    error = fails(openai.APIStatusError, lambda: said(at, ask(), PENNILESS, 5), 402)
    assert error.type == "insufficient_quota", error


@tries("429")
def refused(at):
    obeyed(lambda text: said(at, ask(text), ONE_A_SECOND, 8))


@tries("cancel")
def cancel(at):
    def leave():
        with client(at).chat.completions.create(model=LLAMA, messages=ask("leave"), stream=True, extra_headers=STALLED) as stream:
            next(iter(stream))
    left(leave)


@tries("fifty at once")
def fifty(at):
    async def go():
        async with openai.AsyncOpenAI(base_url=at, api_key="any", max_retries=0) as many:
            one = lambda n: many.chat.completions.create(model=LLAMA, messages=ask(f"{n} at once"))
            return await asyncio.gather(*map(one, range(50)))
    assert len({reply.choices[0].message.content for reply in asyncio.run(go())}) > 1


harness()

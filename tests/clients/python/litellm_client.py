"""LiteLLM, as an OpenAI-compatible endpoint and as a router."""
import asyncio
import json
import os

# Its prices are its own: without this it asks the network for newer ones.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

from gate import (BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, QWEN, STALLED, STYLES, VISION, WEATHER, ask, fails, harness, left,
                  obeyed, see, tries)

litellm.suppress_debug_info = True


def chat(at, model, messages, **more):
    return litellm.completion(model=f"openai/{model}", messages=messages, api_base=at, api_key="any", **{"max_retries": 0, **more})


@tries("chat")
def chats(at):
    for model in MODELS:
        whole = chat(at, model, ask())
        assert whole.choices[0].message.content and whole.usage.completion_tokens > 0, whole


@tries("streams")
def streams(at):
    for model, headers in [(model, {}) for model in MODELS] + [(LLAMA, style) for style in STYLES]:
        whole = chat(at, model, ask(), extra_headers=headers)
        chunks = list(chat(at, model, ask(), stream=True, stream_options={"include_usage": True}, extra_headers=headers))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
        assert text == whole.choices[0].message.content and len(usages) == 1, (model, headers, usages)
        if "none" not in headers.values():
            assert usages[0].completion_tokens == whole.usage.completion_tokens, (headers, usages, whole.usage)
            built = litellm.stream_chunk_builder(chunks, messages=ask())
            assert built.usage.prompt_tokens == whole.usage.prompt_tokens, (headers, built.usage, whole.usage)


@tries("tools")
def tools(at):
    for model in MODELS:
        rounds = []
        for city in ("Oslo", "Rome"):
            rounds += ask(f"weather in {city}?")
            chunks = list(chat(at, model, rounds, tools=[WEATHER], stream=True))
            said = litellm.stream_chunk_builder(chunks, messages=rounds).choices[0]
            (call,) = said.message.tool_calls
            assert call.function.name == "weather" and "city" in json.loads(call.function.arguments), call
            rounds += [said.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
            answer = chat(at, model, rounds, tools=[WEATHER]).choices[0].message.content
            assert answer, model
            rounds += [{"role": "assistant", "content": answer}]


@tries("structured output")
def structured(at):
    person = json.loads(chat(at, LLAMA, ask("somebody"), response_format=PERSON).choices[0].message.content)
    assert set(person) == {"name", "age"}, person


@tries("embeddings")
def embeddings(at):
    for model in (BGE, QWEN):
        for form in ("float", "base64"):
            vectors = litellm.embedding(model=f"openai/{model}", input=["a", "b"], encoding_format=form, api_base=at, api_key="any")
            assert len(vectors.data) == 2 and vectors.usage.prompt_tokens > 0, vectors.usage


@tries("vision")
def vision(at):
    assert chat(at, VISION, see()).choices[0].message.content


@tries("errors")
def errors(at):
    for simulate, kind in (("3040", litellm.RateLimitError), ("5006", litellm.BadRequestError), ("10000", litellm.AuthenticationError)):
        error = fails(kind, lambda: chat(at, LLAMA, ask(simulate), extra_headers={"x-simulate": simulate}))
        assert "AiError" in str(error), error
    model = {"model_name": "m", "litellm_params": {"model": f"openai/{PENNILESS}", "max_retries": 0, "api_base": at, "api_key": "any"}}
    router = litellm.Router(model_list=[model], num_retries=3)
    fails(litellm.APIError, lambda: router.completion(model="m", messages=ask()), 402)


@tries("429")
def refused(at):
    obeyed(lambda text: chat(at, ONE_A_SECOND, ask(text), max_retries=8))


@tries("cancel")
def cancel(at):
    def leave():
        stream = chat(at, LLAMA, ask("leave"), stream=True, extra_headers=STALLED)
        next(stream)
        stream.completion_stream.close()
    left(leave)


@tries("fifty at once")
def fifty(at):
    async def go():
        one = lambda n: litellm.acompletion(
            model=f"openai/{LLAMA}", messages=ask(f"{n} at once"), api_base=at, api_key="any", max_retries=0)
        return await asyncio.gather(*map(one, range(50)))
    assert all(reply.choices[0].message.content for reply in asyncio.run(go()))


harness()

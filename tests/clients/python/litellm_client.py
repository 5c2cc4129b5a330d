"""LiteLLM, as an OpenAI-compatible endpoint and as a router."""
import json
import os

# Its prices are its own: without this it asks the network for newer ones.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, QWEN, V1, VISION, WEATHER, ask, see

litellm.suppress_debug_info = True
here = {"api_base": V1, "api_key": "any"}


def chat(model, messages, **more):
    return litellm.completion(model=f"openai/{model}", messages=messages, **here, **more)


for model in MODELS:
    whole = chat(model, ask())
    assert whole.choices[0].message.content and whole.usage.completion_tokens > 0, whole
    chunks = list(chat(model, ask(), stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert text == whole.choices[0].message.content and len(usages) == 1, (model, usages)
    assert usages[0].completion_tokens == whole.usage.completion_tokens, (usages, whole.usage)
    built = litellm.stream_chunk_builder(chunks, messages=ask())
    assert built.usage.prompt_tokens == whole.usage.prompt_tokens, (built.usage, whole.usage)

    rounds = ask("weather?")
    for stream in (True, False):
        if stream:
            said = litellm.stream_chunk_builder(list(chat(model, rounds, tools=[WEATHER], stream=True)), messages=rounds).choices[0]
            call = said.message.tool_calls[0]
            assert call.function.name == "weather" and "city" in json.loads(call.function.arguments), call
            rounds += [said.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
        else:
            assert chat(model, rounds, tools=[WEATHER]).choices[0].message.content

person = json.loads(chat(LLAMA, ask("somebody"), response_format=PERSON).choices[0].message.content)
assert set(person) == {"name", "age"}, person
assert chat(VISION, see()).choices[0].message.content
for model in (BGE, QWEN):
    for format in ("float", "base64"):
        vectors = litellm.embedding(model=f"openai/{model}", input=["a", "b"], encoding_format=format, **here)
        assert len(vectors.data) == 2 and vectors.usage.prompt_tokens > 0, vectors.usage

for simulate, kind in (("3021", litellm.RateLimitError), ("5006", litellm.BadRequestError), ("10000", litellm.AuthenticationError)):
    try:
        chat(LLAMA, ask(simulate), extra_headers={"x-simulate": simulate}, max_retries=0)
        raise AssertionError(f"{simulate} was answered")
    except kind as error:
        assert "AiError" in str(error), error

model = {"model_name": "m", "litellm_params": {"model": f"openai/{PENNILESS}", "max_retries": 0, **here}}
try:
    litellm.Router(model_list=[model], num_retries=3).completion(model="m", messages=ask())
    raise AssertionError("a budget of nothing was spent")
except litellm.APIError as error:
    assert error.status_code == 402, error
for n in range(2):
    assert chat(ONE_A_SECOND, ask(f"turn {n}"), max_retries=8).choices
print("litellm is at home")

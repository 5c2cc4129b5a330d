"""Haystack: a generator with tools and streams, and embedders."""
from concurrent.futures import ThreadPoolExecutor

from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, Document
from haystack.tools import Tool
from haystack.utils import Secret

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, V1

key = Secret.from_token("any")


def generator(model, **more):
    return OpenAIChatGenerator(api_key=key, model=model, api_base_url=V1, **more)


def said(model, text="Why is the sky blue?", **more):
    return generator(model, **more).run([ChatMessage.from_user(text)])["replies"][0]


weather = Tool(name="weather", description="The weather of a city", function=lambda city: f"Rain in {city}.", parameters={
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
for model in MODELS:
    whole = said(model)
    assert whole.text and whole.meta["usage"]["completion_tokens"] > 0, whole
    pieces = []
    streamed = said(model, streaming_callback=pieces.append, generation_kwargs={"stream_options": {"include_usage": True}})
    assert streamed.text == whole.text and len(pieces) > 1, (model, streamed)
    assert streamed.meta["usage"]["completion_tokens"] == whole.meta["usage"]["completion_tokens"], (model, streamed.meta)

    asked = [ChatMessage.from_user("weather?")]
    for callback in (None, lambda chunk: None):
        reply = generator(model, tools=[weather], streaming_callback=callback).run(asked)["replies"][0]
        call = reply.tool_calls[0]
        assert call.tool_name == "weather" and "city" in call.arguments, (model, reply)
        rounds = asked + [reply, ChatMessage.from_tool(weather.invoke(**call.arguments), origin=call)]
        assert generator(model, tools=[weather]).run(rounds)["replies"][0].text

assert '"name"' in said(LLAMA, "somebody", generation_kwargs={"response_format": PERSON}).text
one = OpenAITextEmbedder(api_key=key, model=BGE, api_base_url=V1).run("a")
many = OpenAIDocumentEmbedder(api_key=key, model=BGE, api_base_url=V1, progress_bar=False).run([Document(content="a")] * 3)
assert one["embedding"] == many["documents"][0].embedding and one["meta"]["usage"]["prompt_tokens"] > 0, one["meta"]
try:
    said(PENNILESS, max_retries=3)
    raise AssertionError("a budget of nothing was spent")
except Exception as error:
    assert getattr(error, "status_code", None) == 402, repr(error)
for n in range(2):
    assert said(ONE_A_SECOND, f"turn {n}", max_retries=8).text
with ThreadPoolExecutor(50) as pool:
    assert all(reply.text for reply in pool.map(lambda n: said(LLAMA, f"{n} at once"), range(50)))
print("haystack is at home")

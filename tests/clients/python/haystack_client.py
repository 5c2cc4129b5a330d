"""Haystack: a generator with tools and streams, and embedders."""
from concurrent.futures import ThreadPoolExecutor

from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, Document, ImageContent
from haystack.tools import Tool
from haystack.utils import Secret
import openai

from gate import (BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PERSON, PIXEL, QWEN, STALLED, STYLES, VISION, fails, harness, left, obeyed,
                  tries)

key = Secret.from_token("any")
weather = Tool(name="weather", description="The weather of a city", function=lambda city: f"Rain in {city}.", parameters={
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


def said(at, messages, model=LLAMA, retries=0, **more):
    if isinstance(messages, str):
        messages = [ChatMessage.from_user(messages)]
    return OpenAIChatGenerator(api_key=key, model=model, api_base_url=at, max_retries=retries, **more).run(messages)["replies"][0]


@tries("chat")
def chat(at):
    for model in MODELS:
        whole = said(at, "Why is the sky blue?", model)
        assert whole.text and whole.meta["usage"]["completion_tokens"] > 0, whole


@tries("streams")
def streams(at):
    for model, headers in [(model, {}) for model in MODELS] + [(LLAMA, style) for style in STYLES]:
        asked = {"extra_headers": headers}
        whole, pieces = said(at, "a tale", model, generation_kwargs=asked), []
        streamed = said(
            at, "a tale", model, streaming_callback=pieces.append, generation_kwargs=asked | {"stream_options": {"include_usage": True}})
        assert streamed.text == whole.text and len(pieces) > 1, (model, headers, streamed)
        told, once = streamed.meta["usage"]["completion_tokens"], whole.meta["usage"]["completion_tokens"]
        assert told == once or "none" in headers.values() and 0 < told, (model, headers, told, once)


@tries("tools")
def tools(at):
    for model in MODELS:
        for callback in (None, lambda chunk: None):
            rounds = []
            for city in ("Oslo", "Rome"):
                rounds += [ChatMessage.from_user(f"weather in {city}?")]
                reply = said(at, rounds, model, tools=[weather], streaming_callback=callback)
                (call,) = reply.tool_calls
                assert call.tool_name == "weather" and "city" in call.arguments, (model, reply)
                rounds += [reply, ChatMessage.from_tool(weather.invoke(**call.arguments), origin=call)]
                rounds += [said(at, rounds, model, tools=[weather], streaming_callback=callback)]
                assert rounds[-1].text, rounds[-1]


@tries("structured output")
def structured(at):
    assert '"name"' in said(at, "somebody", generation_kwargs={"response_format": PERSON}).text


@tries("embeddings")
def embeddings(at):
    for model in (BGE, QWEN):
        one = OpenAITextEmbedder(api_key=key, model=model, api_base_url=at).run("a")
        embedder = OpenAIDocumentEmbedder(api_key=key, model=model, api_base_url=at, progress_bar=False)
        many = embedder.run([Document(content="a")] * 3)
        assert one["embedding"] == many["documents"][0].embedding and one["meta"]["usage"]["prompt_tokens"] > 0, one["meta"]


@tries("vision")
def vision(at):
    picture = ImageContent(base64_image=PIXEL, mime_type="image/png")
    assert said(at, [ChatMessage.from_user(content_parts=["What is this?", picture])], VISION).text


@tries("errors")
def errors(at):
    for simulate, kind in (("3040", openai.RateLimitError), ("5006", openai.BadRequestError), ("10000", openai.AuthenticationError)):
        error = fails(kind, lambda: said(at, simulate, generation_kwargs={"extra_headers": {"x-simulate": simulate}}))
        assert "AiError" in str(error), error
    fails(openai.APIStatusError, lambda: said(at, "hello", PENNILESS, 3), 402)


@tries("429")
def refused(at):
    obeyed(lambda text: said(at, text, ONE_A_SECOND, 8))


class Left(Exception):
    """What a callback leaves a stream with."""


@tries("cancel")
def cancel(at):
    def enough(chunk):
        raise Left

    left(lambda: fails(Left, lambda: said(at, "leave", streaming_callback=enough, generation_kwargs={"extra_headers": STALLED})))


@tries("fifty at once")
def fifty(at):
    with ThreadPoolExecutor(50) as pool:
        assert all(reply.text for reply in pool.map(lambda n: said(at, f"{n} at once"), range(50)))


harness()

"""pydantic-ai: agents with tools, structured output, streams."""
import asyncio
import base64

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PIXEL, QWEN, STALLED, STYLES, VISION, fails, harness, left, obeyed, tries


class Person(BaseModel):
    name: str
    age: int


def provider(at, retries=0):
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=at, api_key="any", max_retries=retries))


def agent(at, model=LLAMA, retries=0, headers={}, **more):
    return Agent(OpenAIChatModel(model, provider=provider(at, retries)), model_settings={"extra_headers": headers}, **more)


@tries("chat")
def chat(at):
    for model in MODELS:
        whole = agent(at, model).run_sync("Why is the sky blue?")
        assert whole.output and whole.usage().output_tokens > 0, whole


@tries("streams")
def streams(at):
    async def go(model, headers):
        whole = await agent(at, model, headers=headers).run("a tale")
        async with agent(at, model, headers=headers).run_stream("a tale") as stream:
            text, usage = await stream.get_output(), stream.usage()
        assert text == whole.output, (model, headers, text)
        told, once = usage.output_tokens, whole.usage().output_tokens
        assert told == once or "none" in headers.values() and 0 < told, (model, headers, told, once)

    for model, headers in [(model, {}) for model in MODELS] + [(LLAMA, style) for style in STYLES]:
        asyncio.run(go(model, headers))


@tries("tools")
def tools(at):
    for model in MODELS:
        asker, asked = agent(at, model), []

        @asker.tool_plain
        def weather(city: str) -> str:
            asked.append(city)
            return f"Rain in {city}."

        first = asker.run_sync("weather in Oslo?")
        second = asker.run_sync("weather in Rome?", message_history=first.all_messages())
        assert first.output and second.output and len(asked) == 2, asked


@tries("structured output")
def structured(at):
    assert agent(at, output_type=Person).run_sync("somebody").output.name


@tries("embeddings")
def embeddings(at):
    for model in (BGE, QWEN):
        embedder = Embedder(OpenAIEmbeddingModel(model, provider=provider(at)))
        told = embedder.embed_documents_sync(["a", "b"])
        assert len(told.embeddings) == 2 and told.usage.input_tokens > 0, told.usage


@tries("vision")
def vision(at):
    assert agent(at, VISION).run_sync(["What is this?", BinaryContent(base64.b64decode(PIXEL), media_type="image/png")]).output


@tries("errors")
def errors(at):
    for simulate, status in (("3040", 429), ("5006", 400), ("10000", 401)):
        error = fails(ModelHTTPError, lambda: agent(at, headers={"x-simulate": simulate}).run_sync(simulate), status)
        assert "AiError" in str(error), error
    fails(ModelHTTPError, lambda: agent(at, PENNILESS, 3).run_sync("hello"), 402)


@tries("429")
def refused(at):
    obeyed(lambda text: agent(at, ONE_A_SECOND, 8).run_sync(text))


@tries("cancel")
def cancel(at):
    async def leave():
        async with agent(at, headers=STALLED).run_stream("leave") as stream:
            async for _ in stream.stream_text(delta=True):
                break
    # The loop's end takes what is still open with it.
    left(lambda: asyncio.run(asyncio.wait_for(leave(), 30)))


@tries("fifty at once")
def fifty(at):
    async def go():
        return await asyncio.gather(*(agent(at).run(f"{n} at once") for n in range(50)))
    assert all(run.output for run in asyncio.run(go()))


harness()

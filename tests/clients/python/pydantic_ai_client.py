"""pydantic-ai: agents with tools, structured output, streams."""
import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import base64

from gate import LLAMA, MODELS, PENNILESS, PIXEL, V1, VISION

provider = OpenAIProvider(base_url=V1, api_key="any")


class Person(BaseModel):
    name: str
    age: int


def agent(model, **more):
    return Agent(OpenAIChatModel(model, provider=provider), **more)


async def main():
    for model in MODELS:
        whole = await agent(model).run("Why is the sky blue?")
        assert whole.output and whole.usage().output_tokens > 0, whole
        async with agent(model).run_stream("Why is the sky blue?") as stream:
            text = await stream.get_output()
            usage = stream.usage()
        assert text == whole.output and usage.output_tokens == whole.usage().output_tokens, (model, usage, whole.usage())

        asker, asked = agent(model), []

        @asker.tool_plain
        def weather(city: str) -> str:
            asked.append(city)
            return f"Rain in {city}."

        assert (await asker.run("weather?")).output and len(asked) == 1, asked

    assert (await agent(LLAMA, output_type=Person).run("somebody")).output.name
    assert (await agent(VISION).run(["What is this?", BinaryContent(base64.b64decode(PIXEL), media_type="image/png")])).output
    try:
        await agent(PENNILESS).run("hello")
        raise AssertionError("a budget of nothing was spent")
    except ModelHTTPError as error:
        assert error.status_code == 402, error
    many = await asyncio.gather(*(agent(LLAMA).run(f"{n} at once") for n in range(20)))
    assert all(run.output for run in many)


asyncio.run(main())
print("pydantic-ai is at home")

"""langchain-openai: its chat model, tools, structured output and embeddings."""
from functools import reduce
from operator import add

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
import openai
from pydantic import BaseModel

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, QWEN, STALLED, STYLES, VISION, fails, harness, left, obeyed, see, tries


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


class Person(BaseModel):
    name: str
    age: int


def model(at, name, **more):
    return ChatOpenAI(model=name, base_url=at, api_key="any", **{"max_retries": 0, **more})


@tries("chat")
def chat(at):
    for name in MODELS:
        whole = model(at, name).invoke("Why is the sky blue?")
        assert whole.content and whole.usage_metadata["output_tokens"] > 0, whole


@tries("streams")
def streams(at):
    for name, headers in [(name, {}) for name in MODELS] + [(LLAMA, style) for style in STYLES]:
        whole = model(at, name, default_headers=headers).invoke("a tale")
        total = reduce(add, model(at, name, stream_usage=True, default_headers=headers).stream("a tale"))
        assert total.content == whole.content, (name, headers, total)
        # LangChain adds usages up: told twice, it would be too much.
        told, once = total.usage_metadata["total_tokens"], whole.usage_metadata["total_tokens"]
        assert told == once or "none" in headers.values() and 0 < told < 2 * once, (name, headers, total.usage_metadata, whole.usage_metadata)


@tries("tools")
def tools(at):
    for name in MODELS:
        bound, rounds = model(at, name).bind_tools([weather]), []
        for city in ("Oslo", "Rome"):
            rounds += [HumanMessage(f"weather in {city}?")]
            said = reduce(add, bound.stream(rounds))
            (call,) = said.tool_calls
            assert call["name"] == "weather" and isinstance(call["args"]["city"], str), said
            rounds += [said, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
            rounds += [bound.invoke(rounds)]
            assert rounds[-1].content and not rounds[-1].tool_calls, rounds[-1]


@tries("structured output")
def structured(at):
    for method in ("json_schema", "function_calling", "json_mode"):
        told = model(at, LLAMA).with_structured_output(Person, method=method, include_raw=True).invoke("somebody, as json")
        # What a schema does not hold may be any object.
        assert method == "json_mode" or told["parsed"].name, (method, told)


@tries("embeddings")
def embeddings(at):
    for name in (BGE, QWEN):
        vectors = OpenAIEmbeddings(model=name, base_url=at, api_key="any", check_embedding_ctx_length=False)
        assert len(vectors.embed_documents(["a", "b"])) == 2
    # By default it sends token numbers of OpenAI's own tokenizer.
    numbers = lambda: openai.OpenAI(base_url=at, api_key="any").embeddings.create(model=BGE, input=[[1, 2]])
    assert "check_embedding_ctx_length" in str(fails(openai.BadRequestError, numbers))


@tries("vision")
def vision(at):
    assert model(at, VISION).invoke(see()).content


@tries("errors")
def errors(at):
    for simulate, kind in (("3040", openai.RateLimitError), ("5006", openai.BadRequestError), ("10000", openai.AuthenticationError)):
        error = fails(kind, lambda: model(at, LLAMA, default_headers={"x-simulate": simulate}).invoke(simulate))
        assert "AiError" in str(error), error
    fails(openai.APIStatusError, lambda: model(at, PENNILESS, max_retries=5).invoke("hello"), 402)


@tries("429")
def refused(at):
    obeyed(lambda text: model(at, ONE_A_SECOND, max_retries=8).invoke(text))


@tries("cancel")
def cancel(at):
    def leave():
        stream = model(at, LLAMA, default_headers=STALLED).stream("leave")
        next(stream)
        stream.close()
    left(leave)


@tries("fifty at once")
def fifty(at):
    replies = model(at, LLAMA).batch([f"{n} at once" for n in range(50)], {"max_concurrency": 50})
    assert all(reply.content for reply in replies)


harness()

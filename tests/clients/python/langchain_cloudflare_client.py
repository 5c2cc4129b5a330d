"""langchain-cloudflare, which speaks the vendor's own routes: its base URL leads it to the gate."""
from functools import reduce
from operator import add
import time

import httpx
from langchain_cloudflare import ChatCloudflareWorkersAI, CloudflareWorkersAIEmbeddings
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from gate import BASE, BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, STALLED, STYLES, TWIN, VISION, fails, harness, left, obeyed, see, tries

FORMS = ("workers_ai", "openai_compatible")


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


class Person(BaseModel):
    name: str
    age: int


def model(at, name=LLAMA, headers={}, **more):
    # It has no parameter for headers, but takes a client.
    client = httpx.Client(base_url=at, headers={"authorization": "Bearer any", **headers})
    return ChatCloudflareWorkersAI(model=name, base_url=at, client=client, account_id="acc", api_token="any", **more)


@tries("chat")
def chat(at):
    for form in FORMS:
        whole = model(at, endpoint_format=form).invoke("Why is the sky blue?")
        assert whole.content and whole.usage_metadata["output_tokens"] > 0, (form, whole)


@tries("streams")
def streams(at):
    for form in FORMS:
        for name, headers in [(name, {}) for name in MODELS] + [(LLAMA, style) for style in STYLES]:
            whole = model(at, name, headers, endpoint_format=form).invoke("a tale")
            streamed = reduce(add, model(at, name, headers, endpoint_format=form).stream("a tale"))
            assert streamed.content == whole.content, (form, name, headers, streamed, whole)


@tries("tools")
def tools(at):
    for form in FORMS:
        bound, rounds = model(at, endpoint_format=form).bind_tools([weather]), []
        for city in ("Oslo", "Rome"):
            rounds += [HumanMessage(f"weather in {city}?")]
            said = bound.invoke(rounds)
            (call,) = said.tool_calls
            assert call["name"] == "weather" and isinstance(call["args"]["city"], str), (form, said)
            rounds += [said, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
            rounds += [bound.invoke(rounds)]
            assert rounds[-1].content, form


@tries("structured output")
def structured(at):
    # By a tool, as it does without a word on it; its other ways put the schema into a prompt, which the stand-in does not obey.
    for form in FORMS:
        assert model(at, endpoint_format=form).with_structured_output(Person).invoke("somebody").name, form


@tries("embeddings")
def embeddings(at):
    embedder = CloudflareWorkersAIEmbeddings(account_id="acc", api_token="any", model_name=BGE, api_base_url=f"{at}/accounts")
    assert len(embedder.embed_documents(["a", "b"])) == 2 and embedder.embed_query("a")


@tries("vision")
def vision(at):
    assert model(at, VISION, endpoint_format="openai_compatible").invoke(see()).content


@tries("errors")
def errors(at):
    for form in FORMS:
        for simulate, status in (("3040", 429), ("5006", 400), ("10000", 401), ("502;form=html", 502)):
            error = fails(httpx.HTTPStatusError, lambda: model(at, headers={"x-simulate": simulate}, endpoint_format=form).invoke(simulate))
            assert error.response.status_code == status and error.response.text, (form, simulate, error)
        # On the vendor's paths a budget's refusal is the vendor's own status for it.
        error = fails(httpx.HTTPStatusError, lambda: model(at, PENNILESS, endpoint_format=form).invoke("hello"))
        assert error.response.status_code == 429 and "budget" in error.response.text, (form, error.response.text)


@tries("429")
def refused(at):
    def patient(text):
        # Its `max_retries` is read by nothing: who asks again does it by hand, when the refusal says.
        while True:
            try:
                return model(at, ONE_A_SECOND).invoke(text)
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == 429, error
                time.sleep(float(error.response.headers["retry-after"]))
    obeyed(patient)


@tries("cancel")
def cancel(at):
    def leave():
        stream = model(at, headers=STALLED, endpoint_format="openai_compatible").stream("leave")
        next(stream)
        stream.close()
    left(leave)


@tries("fifty at once")
def fifty(at):
    replies = model(at).batch([f"{n} at once" for n in range(50)], {"max_concurrency": 50})
    assert all(reply.content for reply in replies)


harness(f"{BASE}/client/v4", f"{TWIN}/client/v4")

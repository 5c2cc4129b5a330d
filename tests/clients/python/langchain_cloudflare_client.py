"""langchain-cloudflare, which speaks the vendor's own routes: its base URL leads it to the gate."""
import json

from langchain_cloudflare import ChatCloudflareWorkersAI, CloudflareWorkersAIEmbeddings
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

from gate import BASE, BGE, LLAMA, PENNILESS

API = f"{BASE}/client/v4"


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


def chat(model, **more):
    return ChatCloudflareWorkersAI(model=model, base_url=API, account_id="acc", api_token="any", **more)


for form in ("workers_ai", "openai_compatible"):
    whole = chat(LLAMA, endpoint_format=form, temperature=0).invoke("Why is the sky blue?")
    assert whole.content and whole.usage_metadata["output_tokens"] > 0, (form, whole)
    streamed = None
    for chunk in chat(LLAMA, endpoint_format=form, temperature=0).stream("Why is the sky blue?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.content == whole.content, (form, streamed, whole)

    bound, rounds = chat(LLAMA, endpoint_format=form).bind_tools([weather]), [HumanMessage("weather?")]
    said = bound.invoke(rounds)
    call = said.tool_calls[0]
    assert call["name"] == "weather" and isinstance(call["args"]["city"], str), (form, said)
    rounds += [said, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(rounds).content, form

embedder = CloudflareWorkersAIEmbeddings(
    account_id="acc", api_token="any", model_name=BGE, api_base_url=f"{API}/accounts")
assert len(embedder.embed_documents(["a", "b"])) == 2 and embedder.embed_query("a")
try:
    chat(PENNILESS, max_retries=3).invoke("hello")
    raise AssertionError("a budget of nothing was spent")
except Exception as error:
    assert "budget" in str(error).lower() or "429" in str(error), repr(error)
print("langchain-cloudflare is at home")

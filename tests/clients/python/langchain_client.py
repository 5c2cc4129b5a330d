"""langchain-openai: its chat model, tools, structured output and embeddings."""
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
import openai
from pydantic import BaseModel

from gate import BGE, LLAMA, MODELS, ONE_A_SECOND, PENNILESS, QWEN, V1, VISION, see


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


class Person(BaseModel):
    name: str
    age: int


def chat(model, **more):
    return ChatOpenAI(model=model, base_url=V1, api_key="any", **more)


for model in MODELS:
    whole = chat(model).invoke("Why is the sky blue?")
    assert whole.content and whole.usage_metadata["output_tokens"] > 0, whole
    total = None
    for chunk in chat(model, stream_usage=True).stream("Why is the sky blue?"):
        total = chunk if total is None else total + chunk
    # LangChain adds usages up: told twice, it would be too much.
    assert total.content == whole.content and total.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"], (
        model, total.usage_metadata, whole.usage_metadata)

    bound, rounds = chat(model).bind_tools([weather]), [HumanMessage("weather?")]
    said = None
    for chunk in bound.stream(rounds):
        said = chunk if said is None else said + chunk
    call = said.tool_calls[0]
    assert call["name"] == "weather" and isinstance(call["args"]["city"], str), said
    rounds += [said, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(rounds).content

assert chat(LLAMA).with_structured_output(Person, method="json_schema").invoke("somebody").name
assert chat(VISION).invoke(see()).content
for model in (BGE, QWEN):
    vectors = OpenAIEmbeddings(model=model, base_url=V1, api_key="any", check_embedding_ctx_length=False)
    assert len(vectors.embed_documents(["a", "b"])) == 2
try:
    # By default it sends token numbers of OpenAI's own tokenizer.
    OpenAIEmbeddings(model="text-embedding-3-small", base_url=V1, api_key="any", tiktoken_enabled=False)
    openai.OpenAI(base_url=V1, api_key="any").embeddings.create(model=BGE, input=[[1, 2]])
    raise AssertionError("token numbers were taken")
except openai.BadRequestError as error:
    assert "check_embedding_ctx_length" in str(error), error
try:
    chat(PENNILESS, max_retries=5).invoke("hello")
    raise AssertionError("a budget of nothing was spent")
except openai.APIStatusError as error:
    assert error.status_code == 402, error
replies = chat(LLAMA).batch([f"{n} at once" for n in range(20)])
assert all(reply.content for reply in replies)
for n in range(2):
    assert chat(ONE_A_SECOND, max_retries=8).invoke(f"turn {n}").content
print("langchain-openai is at home")

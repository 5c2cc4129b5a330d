"""llm, whose models of one's own stand in a file: its commands, and its Python API."""
import asyncio
import base64
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from gate import (LLAMA, MODELS, ONE_A_SECOND, PENNILESS, PIXEL, STALLED, STYLES, VISION, fails, harness, left, obeyed, tries)

home = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = home.name
os.environ["OPENAI_API_KEY"] = "any"
import llm
import openai

# It has no setting for retries, and the client under it tries a 429 again.
SIMULATED = ("5006", "10000", "5035;form=bare")
ENTRY = """
- model_id: "{id}"
  model_name: "{model}"
  api_base: "{at}"
  api_key_name: tollgate
  supports_tools: true
  supports_schema: true
  vision: true
  headers: {headers}
"""


@functools.cache
def models(at):
    """Its models by their names, some with a header of their own, out of the file in which they stand."""
    entries = [(model, model, {}) for model in (*MODELS, PENNILESS, ONE_A_SECOND, VISION)]
    entries += [(style["x-simulate-usage"], LLAMA, style) for style in STYLES] + [("stalled", LLAMA, STALLED)]
    entries += [(simulate, LLAMA, {"x-simulate": simulate}) for simulate in SIMULATED]
    text = "".join(ENTRY.format(id=id, model=model, at=at, headers=json.dumps(headers)) for id, model, headers in entries)
    pathlib.Path(home.name, "extra-openai-models.yaml").write_text(text)
    # Its embeddings have no address of their own: they follow the OpenAI client's.
    os.environ["OPENAI_BASE_URL"] = at
    return {model.model_id: model for model in llm.get_models() if model.model_id in text}


def said(at, text, model=LLAMA, **more):
    return models(at)[model].prompt(text, key="any", **more)


def command(*arguments):
    ran = subprocess.run([sys.executable, "-m", "llm", *arguments], capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else f"failed: {ran.stderr}{ran.stdout}"


@tries("chat")
def chat(at):
    models(at)
    command("keys", "set", "tollgate", "--value", "any")
    told = command("-m", LLAMA, "--no-stream", "Why is the sky blue?")
    assert told.strip() == said(at, "Why is the sky blue?", stream=False).text().strip(), told
    assert '"input_tokens"' in command("logs", "-n", "1", "--json")
    assert all(said(at, "hello", model, stream=False).text() for model in MODELS)


@tries("streams")
def streams(at):
    for model in [*MODELS, *(style["x-simulate-usage"] for style in STYLES)]:
        whole, streamed = said(at, "a tale", model, stream=False), said(at, "a tale", model)
        pieces = list(streamed)
        assert len(pieces) > 1 and streamed.text() == whole.text(), (model, pieces)
        told, once = streamed.usage().output, whole.usage().output
        assert told == once or model == "none" and 0 < told, (model, told, once)


def weather(city: str) -> str:
    """The weather of a city."""
    asked.append(city)
    return "Rain."


asked = []


@tries("tools")
def tools(at):
    for model in MODELS:
        for stream in (True, False):
            asked.clear()
            talk = models(at)[model].conversation(tools=[weather])
            for city in ("Oslo", "Rome"):
                assert talk.chain(f"weather in {city}?", key="any", stream=stream).text(), model
            assert len(asked) == 2, (model, stream, asked)


@tries("structured output")
def structured(at):
    person = json.loads(said(at, "somebody", schema=llm.schema_dsl("name, age int"), stream=False).text())
    assert set(person) == {"name", "age"}, person


@tries("embeddings")
def embeddings(at):
    models(at)
    model = llm.get_embedding_model("3-small")
    assert all(any(vector) for vector in model.embed_batch(["a", "b"], key="any"))


@tries("vision")
def vision(at):
    picture = llm.Attachment(type="image/png", content=base64.b64decode(PIXEL))
    assert said(at, "What is this?", VISION, attachments=[picture]).text()


@tries("errors")
def errors(at):
    for simulate in SIMULATED:
        told = str(fails((llm.ModelError, openai.APIError), lambda: said(at, simulate, simulate, stream=False).text()))
        assert "AiError" in told or "5035" in told, told
    models(at)
    poor = command("-m", PENNILESS, "--no-stream", "hello")
    assert "failed" in poor and "402" in poor, poor


@tries("429")
def refused(at):
    obeyed(lambda text: said(at, text, ONE_A_SECOND, stream=False).text())


@tries("cancel")
def cancel(at):
    def leave():
        pieces = iter(said(at, "leave", "stalled"))
        next(pieces)
        pieces.close()
    left(leave)


@tries("fifty at once")
def fifty(at):
    models(at)
    model = llm.get_async_model(LLAMA)

    async def go():
        one = lambda n: model.prompt(f"{n} at once", key="any", stream=False).text()
        return await asyncio.gather(*map(one, range(50)))
    assert all(asyncio.run(go()))


harness()

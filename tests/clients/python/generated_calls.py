"""Generated calls of each route of /v1: every reply and chunk is read by OpenAI's and Anthropic's own models in strict mode."""
import base64
import io
import json
import random
import struct
import wave
from typing import get_args

import httpx
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse
from openai.types.audio import Transcription, TranscriptionStreamEvent, TranscriptionVerbose, TranslationVerbose
from openai.types.audio.translation import Translation
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gate import BGE, GEMMA, LLAMA, MODELS, PERSON, QWEN, V1, VISION, WEATHER, ask, see

# What the gate adds to OpenAI's fields: reasoning, the vendor's word on the cost, and its own mark.
OURS = {"reasoning", "reasoning_content", "neurons", "x_tollgate"}
STYLES = ["end", "running", "increments", "none"]
http = httpx.Client(base_url=V1, headers={"authorization": "Bearer any"}, timeout=60)
dice = random.Random(7)


def strict(kind, value, ours=OURS):
    read = TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    beyond(read, ours)
    return read


def beyond(read, ours):
    """No model of OpenAI's may hold a field that is neither OpenAI's nor the gate's."""
    if isinstance(read, list):
        return [beyond(item, ours) for item in read]
    if hasattr(type(read), "model_fields"):
        assert set(read.model_extra or {}) <= ours, (type(read), read.model_extra)
        return [beyond(getattr(read, name), ours) for name in type(read).model_fields]


def by_type(union):
    """The members of a union by their `type`, one of which an event is."""
    members = get_args(union)
    members = members if hasattr(members[0], "model_fields") else get_args(members[0])
    return {kind: member for member in members for kind in get_args(member.model_fields["type"].annotation)}


RESPONSE_EVENTS, MESSAGE_EVENTS, TRANSCRIPT_EVENTS = map(by_type, (ResponseStreamEvent, RawMessageStreamEvent, TranscriptionStreamEvent))


def chance(odds):
    return dice.random() < odds


def some(odds, **fields):
    """Each of the fields, or not."""
    return {name: value for name, value in fields.items() if chance(odds)}


def post(path, body, headers={}, **more):
    reply = http.post(path, headers=headers, **({"json": body} if body is not None else {}), **more)
    assert reply.status_code == 200, (path, body, more.get("data"), reply.text)
    return reply


def events(reply):
    """What a stream's events hold, and whether `[DONE]` ends them."""
    assert reply.headers["content-type"].startswith("text/event-stream"), (reply.headers, reply.text)
    data = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(chunk) for chunk in data if chunk != "[DONE]"], data[-1] == "[DONE]"


def usage_style():
    return {"x-simulate-usage": dice.choice(STYLES)} if chance(0.7) else {}


def ended(chunk):
    """OpenAI documents a completion's chunk without an end as one whose `finish_reason` is null, which its own model does not take."""
    return chunk | {"choices": [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]}


def streamed(kind, path, body, is_asked):
    """The chunks of a chat or a completion; usage comes once, and only where it was asked for."""
    body = body | {"stream": True} | ({"stream_options": {"include_usage": True}} if is_asked else {})
    headers = usage_style()
    reply = post(path, body, headers)
    chunks, is_done = events(reply)
    read = [strict(kind, ended(chunk) if kind is Completion else chunk) for chunk in chunks]
    assert is_done and sum(chunk.usage is not None for chunk in read) == is_asked, (body, headers, reply.text)
    assert len({chunk.id for chunk in read}) == 1 and (read[-1].choices == []) == is_asked, reply.text
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(ends) == 1, (body, ends)
    return chunks


def chat(n):
    body = {"model": dice.choice(MODELS + (LLAMA, VISION)), "messages": dice.choice([ask(f"case {n}"), see()])}
    body |= some(0.3, tools=[WEATHER], response_format=PERSON, max_tokens=dice.randint(1, 60), temperature=dice.random(), seed=n)
    if chance(0.7):
        is_asked = chance(0.5)
        chunks = streamed(ChatCompletionChunk, "/chat/completions", body, is_asked)
        assert all(("usage" in chunk) == is_asked for chunk in chunks), chunks
        return
    reply = post("/chat/completions", body, usage_style())
    whole = strict(ChatCompletion, reply.json())
    assert whole.usage and isinstance(whole.choices[0].message.content, (str, type(None))), reply.text


def completion(n):
    body = {"model": dice.choice(MODELS), "prompt": dice.choice([f"case {n}", [f"case {n}"], ""])}
    body |= some(0.3, max_tokens=dice.randint(1, 60), temperature=dice.random(), seed=n, echo=False, best_of=1, suffix="", logprobs=0)
    if chance(0.5):
        streamed(Completion, "/completions", body, chance(0.5))
    else:
        whole = strict(Completion, post("/completions", body, usage_style()).json())
        assert whole.usage.prompt_tokens > 0 and whole.choices[0].text is not None, whole


def embeddings(n):
    body = {"model": dice.choice([BGE, QWEN]), "input": [f"text {n} {i}" for i in range(dice.randint(1, 4))]}
    floats = strict(CreateEmbeddingResponse, post("/embeddings", body).json())
    encoded = post("/embeddings", body | {"encoding_format": "base64"}).json()
    for vector, item in zip(floats.data, encoded["data"], strict=True):
        told = struct.unpack(f"<{len(vector.embedding)}f", base64.b64decode(item["embedding"]))
        assert all(abs(a - b) < 1e-6 for a, b in zip(told, vector.embedding, strict=True))
    assert floats.usage.prompt_tokens > 0


def images(n):
    schnell = "@cf/black-forest-labs/flux-1-schnell"
    model = dice.choice([schnell, "@cf/black-forest-labs/flux-2-klein-4b", "@cf/leonardo/lucid-origin",
                         "@cf/leonardo/phoenix-1.0", "@cf/stabilityai/stable-diffusion-xl-base-1.0"])
    body = {"model": model, "prompt": f"bridge {n}"}
    body |= some(0.3, n=1, response_format="b64_json", size=dice.choice(["auto", "1024x1024"]), quality=dice.choice(["auto", "standard"]),
                 user="somebody", background="auto", seed=n)
    made = strict(ImagesResponse, post("/images/generations", body).json())
    assert base64.b64decode(made.data[0].b64_json, validate=True) and made.data[0].url is None, body


def speech(n):
    body = {"input": f"mind the gap {n}"}
    if chance(0.2):
        body |= {"model": "@cf/myshell-ai/melotts", "voice": dice.choice(["alloy", "en"])}
    else:
        body |= {"model": dice.choice(["@cf/deepgram/aura-1", "@cf/deepgram/aura-2-en"]), "voice": dice.choice(["nova", "ash", "sage"])}
        body |= some(0.7, response_format=dice.choice(["mp3", "opus", "aac", "flac", "wav", "pcm"]))
    body |= some(0.2, speed=1.0, stream_format="audio", instructions="")
    reply = post("/audio/speech", body)
    assert reply.content and reply.headers["content-type"].startswith("audio/"), (body, reply.headers)


def recording(seconds):
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(16000 * seconds))
    return sound.getvalue()


TURBO = "@cf/openai/whisper-large-v3-turbo"


def transcription(n):
    is_translation = chance(0.3)
    model = TURBO if is_translation else dice.choice([TURBO, "@cf/openai/whisper", "@cf/deepgram/nova-3"])
    fields = {"model": model} | some(0.3, temperature="0")
    fields |= some(0.8, response_format=dice.choice(["json", "text", "srt", "verbose_json", "vtt"]))
    if model == TURBO:
        fields |= some(0.3, language="en", prompt="bridges")
    if not is_translation:
        fields |= some(0.3, **{"timestamp_granularities[]": dice.choice(["word", "segment"])})
        if fields.get("response_format", "json") == "json":
            fields |= some(0.3, stream="true")
    path = "/audio/translations" if is_translation else "/audio/transcriptions"
    reply = post(path, None, data=fields, files={"file": ("a.wav", recording(1 + n % 5))})
    form = fields.get("response_format", "json")
    if "stream" in fields:
        read = [strict(TRANSCRIPT_EVENTS[event["type"]], event) for event in events(reply)[0]]
        assert [event.type for event in read] == ["transcript.text.delta", "transcript.text.done"], reply.text
    elif form == "json":
        assert strict(Translation if is_translation else Transcription, reply.json(), OURS | {"usage"}).text, fields
    elif form == "verbose_json":
        heard = strict(TranslationVerbose if is_translation else TranscriptionVerbose, reply.json(), OURS | {"task", "usage"})
        assert heard.segments and heard.text, fields
        assert ("words" in reply.json()) == ("word" in fields.get("timestamp_granularities[]", "")), (fields, reply.text)
    else:
        starts = {"text": "", "srt": "1\n00:00:", "vtt": "WEBVTT\n\n00:00:"}[form]
        assert reply.text.startswith(starts) and reply.headers["content-type"].startswith("text/plain"), (fields, reply.text)


def moderation(n):
    text = f"case {n}"
    body = {"input": dice.choice([text, [text], [{"type": "text", "text": text}]])}
    body |= some(0.5, model=dice.choice(["omni-moderation-latest", "@cf/meta/llama-guard-3-8b"]))
    told = strict(ModerationCreateResponse, post("/moderations", body).json())
    assert len(told.results) == 1 and told.results[0].flagged == any(told.results[0].categories.model_dump().values()), told


def rerank(n):
    documents = [dice.choice([f"text {n} {i}", {"text": f"text {n} {i}"}]) for i in range(dice.randint(1, 6))]
    body = {"model": "@cf/baai/bge-reranker-base", "query": "text", "documents": documents}
    body |= some(0.4, top_n=dice.randint(1, 8), return_documents=True)
    told = post("/rerank", body).json()
    ranks = told["results"]
    assert len(ranks) == min(body.get("top_n", 99), len(documents)), (body, told)
    scores = [rank["relevance_score"] for rank in ranks]
    assert scores == sorted(scores, reverse=True) and len({rank["index"] for rank in ranks}) == len(ranks), told
    for rank in ranks:
        meant = documents[rank["index"]]
        wanted = {"text": meant if isinstance(meant, str) else meant["text"]} if "return_documents" in body else None
        assert rank.get("document") == wanted and set(rank) <= {"index", "relevance_score", "document"}, (body, rank)


FUNCTION = {"type": "function", "strict": False, **WEATHER["function"]}


def response(n):
    body = {"model": dice.choice(["@cf/openai/gpt-oss-20b", "@cf/openai/gpt-oss-120b"]), "input": dice.choice([f"case {n}", ask(f"case {n}")])}
    body |= some(0.3, tools=[FUNCTION], instructions="Be brief.", max_output_tokens=dice.randint(16, 90), temperature=dice.random(),
                 text={"format": {"type": "json_schema", "name": "person", "schema": PERSON["json_schema"]["schema"]}})
    if not chance(0.6):
        strict(Response, post("/responses", body).json())
        return
    reply = post("/responses", body | {"stream": True})
    read = [strict(RESPONSE_EVENTS[event["type"]], event) for event in events(reply)[0]]
    assert read[0].type == "response.created" and read[-1].type == "response.completed", reply.text
    assert [event.sequence_number for event in read] == list(range(len(read))), reply.text
    assert read[-1].response.usage.output_tokens > 0, reply.text


TOOL = {"name": "weather", "description": "The weather of a city", "input_schema": WEATHER["function"]["parameters"]}


def message(n):
    body = {"model": dice.choice([LLAMA, GEMMA, "@cf/zai-org/glm-5.2"]), "max_tokens": dice.randint(1, 90), "messages": ask(f"case {n}")}
    body |= some(0.3, tools=[TOOL], system="Be brief.", temperature=dice.random())
    headers = usage_style()
    if not chance(0.6):
        whole = strict(Message, post("/messages", body, headers).json())
        assert whole.usage.input_tokens > 0, whole
        return
    reply = post("/messages", body | {"stream": True}, headers)
    read = [strict(MESSAGE_EVENTS[event["type"]], event) for event in events(reply)[0] if event["type"] != "ping"]
    assert (read[0].type, read[-1].type) == ("message_start", "message_stop"), reply.text
    (end,) = [event for event in read if event.type == "message_delta"]
    assert end.delta.stop_reason and end.usage.output_tokens > 0, reply.text


ROUTES = [chat, chat, chat, completion, embeddings, images, speech, transcription, moderation, rerank, response, message]


def run(cases):
    for n in range(cases):
        ROUTES[n % len(ROUTES)](n)

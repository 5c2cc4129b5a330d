"""The real OpenAI client against the sidecar: python openai_client.py BASE_URL"""
import sys
import time

import openai

base_url = sys.argv[1]
client = openai.OpenAI(base_url=base_url, api_key="any", max_retries=0)
LLAMA = "@cf/meta/llama-3.2-1b-instruct"
GEMMA = "@cf/google/gemma-4-26b-a4b-it"
messages = [{"role": "user", "content": "Why is the sky blue?"}]

reply = client.chat.completions.with_raw_response.create(model=LLAMA, messages=messages)
whole = reply.parse()
assert whole.choices[0].message.content and whole.usage.prompt_tokens > 0
assert float(reply.headers["x-tollgate-neurons"]) > 0

for model in (LLAMA, GEMMA):
    text, usage = "", None
    for chunk in client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            text += chunk.choices[0].delta.content
        usage = chunk.usage or usage
    assert text and usage.prompt_tokens >= 0, (model, text, usage)

tools = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
call = client.chat.completions.create(model=LLAMA, messages=messages, tools=tools).choices[0].message.tool_calls[0]
assert call.function.name == "weather" and "city" in call.function.arguments
streamed = list(client.chat.completions.create(model=LLAMA, messages=messages, tools=tools, stream=True))
assert any(c.choices and c.choices[0].delta.tool_calls for c in streamed)

vectors = client.embeddings.create(model="@cf/baai/bge-m3", input=["a", "b"], encoding_format="float")
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) == 1024

assert client.responses.create(model=LLAMA, input="hello").output_text
with client.responses.stream(model=LLAMA, input="hello") as stream:
    assert stream.get_final_response().usage.output_tokens > 0

for wrong, kind in (({"model": "", "messages": messages}, openai.BadRequestError),
                    ({"model": "@cf/nobody/knows", "messages": messages}, openai.BadRequestError)):
    try:
        client.chat.completions.create(**wrong)
        raise AssertionError(f"{wrong} was accepted")
    except kind as error:
        assert error.message, error
# Retries: what a retry cannot mend is asked once, what it can mend until it succeeds, and at the time that the reply names.
def patient(base_url, first=None):
    """A client that may retry, and the requests and replies it made; the first request asks the simulator for trouble."""
    wire = []

    def sent(request):
        if first and not wire:
            request.headers["x-simulate"] = first
        wire.append(request)

    hooks = {"request": [sent], "response": [wire.append]}
    http_client = openai.DefaultHttpxClient(event_hooks=hooks)
    return openai.OpenAI(base_url=base_url, api_key="any", max_retries=8, http_client=http_client), wire


spent, wire = patient(base_url.removesuffix("/v1") + "/client/v4/accounts/spent/ai/v1", "4006")
for _ in range(2):
    try:
        spent.chat.completions.create(model=LLAMA, messages=messages)
        raise AssertionError("429 was expected")
    except openai.RateLimitError as error:
        assert error.response.headers["x-should-retry"] == "false", error.response.headers
        assert "free" in error.response.text, error.response.text
assert len(wire) == 4, wire

passing, wire = patient(base_url, "3040")
again = [{"role": "user", "content": "Room now?"}]
assert passing.chat.completions.create(model=LLAMA, messages=again).choices[0].message.content
assert [reply.status_code for reply in wire[1::2]] == [429, 200], wire

real, pauses = time.sleep, []
time.sleep = lambda seconds: (pauses.append(seconds), real(seconds))
waiting, wire = patient(base_url)
refusals = []
for n in range(20):  # on a slow machine a call may take longer than its turn
    if not refusals:
        asked = [{"role": "user", "content": f"call {n}"}]
        waiting.chat.completions.create(model="@cf/meta/llama-3.2-3b-instruct", messages=asked)
        refusals = [reply for reply in wire[1::2] if reply.status_code == 429]
assert refusals, "no call came before its turn"
for refusal in refusals:
    assert refusal.headers["x-should-retry"] == "true", refusal.headers
    asked = float(refusal.headers["retry-after-ms"]) / 1000
    assert any(abs(pause - asked) < 1e-9 for pause in pauses), (asked, pauses)
print("openai", openai.__version__, "is at home")

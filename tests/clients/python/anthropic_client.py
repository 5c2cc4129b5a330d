"""The real Anthropic client: whole messages, streams, thinking, tools, pictures, refusals."""
import anthropic

from gate import BASE, LLAMA, PENNILESS, PIXEL, VISION, ask

GLM = "@cf/zai-org/glm-5.2"
messages = ask()


def client(**options):
    return anthropic.Anthropic(base_url=BASE, **{"api_key": "any", "max_retries": 0, **options})


# A key comes as `x-api-key`, or as a bearer.
for vouched in ({}, {"api_key": None, "auth_token": "any"}):
    reply = client(**vouched).messages.with_raw_response.create(model=LLAMA, max_tokens=64, messages=messages)
    whole = reply.parse()
    assert whole.type == "message" and whole.content[0].text and whole.stop_reason in ("end_turn", "max_tokens"), whole
    assert whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0, whole.usage
    assert float(reply.headers["x-tollgate-neurons"]) > 0

with client().messages.stream(model=LLAMA, max_tokens=64, system="Be brief.", messages=messages) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text and final.content[0].text == text and final.usage.output_tokens > 1, final

thinking = client().messages.create(
    model=GLM, max_tokens=2048, messages=messages, thinking={"type": "enabled", "budget_tokens": 1024})
assert [block.type for block in thinking.content] == ["thinking", "text"], thinking

tools = [{"name": "weather", "description": "Tells the weather.", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]
asked = dict(model=LLAMA, max_tokens=256, tools=tools)
called = client().messages.create(messages=messages, **asked)
use = called.content[-1]
assert called.stop_reason == "tool_use" and use.name == "weather" and "city" in use.input, called
with client().messages.stream(messages=messages, **asked) as stream:
    streamed = stream.get_final_message()
assert streamed.content[-1].input == use.input and streamed.usage.output_tokens > 1, streamed
told = [*messages, {"role": "assistant", "content": [block.to_dict() for block in called.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}]}]
answered = client().messages.create(messages=told, **asked)
assert answered.stop_reason == "end_turn" and answered.content[0].text, answered


picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
seen = client().messages.create(
    model=VISION, max_tokens=32, messages=[{"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}])
assert seen.usage.input_tokens > 1000, "a picture is read, too"


def fails(kind, simulate=None, **asked):
    headers = {"x-simulate": simulate} if simulate else {}
    asked = {"model": LLAMA, "max_tokens": 8, "messages": messages, **asked}
    try:
        if asked.pop("streamed", False):
            with client().messages.stream(extra_headers=headers, **asked) as stream:
                stream.get_final_message()
        else:
            client().messages.create(extra_headers=headers, **asked)
    except kind as error:
        assert error.body["type"] == "error", error.body
        return error.body["error"]["type"]
    raise AssertionError(f"{simulate} {asked} was answered")


# The vendor's refusals in its own envelope or in Anthropic's, and the gate's, are told in Anthropic's.
for form in ("envelope", "anthropic"):
    assert fails(anthropic.RateLimitError, f"3021;form={form}") == "rate_limit_error"
    assert fails(anthropic.AuthenticationError, f"10000;form={form}") == "authentication_error"
    assert fails(anthropic.BadRequestError, f"5006;form={form}") == "invalid_request_error"
assert fails(anthropic.APIStatusError, "stream-error", streamed=True)
assert fails(anthropic.BadRequestError, model="@cf/nobody/knows") == "invalid_request_error"
assert fails(anthropic.BadRequestError, model="") == "invalid_request_error"
assert fails(anthropic.APIStatusError, model=PENNILESS) == "billing_error"

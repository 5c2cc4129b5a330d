"""The real Anthropic client: whole messages, streams, thinking, tools, pictures, refusals."""
import asyncio

import anthropic

from gate import BASE, GEMMA, LLAMA, ONE_A_SECOND, PENNILESS, PIXEL, STALLED, STYLES, TWIN, VISION, ask, fails, harness, left, obeyed, tries

GLM = "@cf/zai-org/glm-5.2"
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
PERSON = {"name": "person", "description": "Tells of a person.", "input_schema": {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}}


def client(at, **options):
    return anthropic.Anthropic(base_url=at, **{"api_key": "any", "max_retries": 0, **options})


def said(at, messages, model=LLAMA, retries=0, simulate=None, **more):
    headers = {"x-simulate": simulate} if simulate else {}
    more = {"max_tokens": 256, **more}
    return client(at, max_retries=retries).messages.create(model=model, messages=messages, extra_headers=headers, **more)


@tries("chat")
def chat(at):
    # A key comes as `x-api-key`, or as a bearer.
    for vouched in ({}, {"api_key": None, "auth_token": "any"}):
        reply = client(at, **vouched).messages.with_raw_response.create(model=LLAMA, max_tokens=64, messages=ask())
        whole = reply.parse()
        assert whole.type == "message" and whole.content[0].text and whole.stop_reason in ("end_turn", "max_tokens"), whole
        assert whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0, whole.usage
        assert float(reply.headers["x-tollgate-neurons"]) > 0
    thinking = said(at, ask(), GLM, max_tokens=2048, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in thinking.content] == ["thinking", "text"], thinking


@tries("streams")
def streams(at):
    for model, headers in [(LLAMA, {}), (GEMMA, {})] + [(LLAMA, style) for style in STYLES]:
        asked = dict(model=model, max_tokens=64, system="Be brief.", messages=ask(), extra_headers=headers)
        whole = client(at).messages.create(**asked)
        with client(at).messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text and final.content[0].text == text == whole.content[0].text, (model, headers, final)
        told, once = final.usage.output_tokens, whole.usage.output_tokens
        assert told == once or "none" in headers.values(), (model, headers, told, once)


@tries("tools")
def tools(at):
    rounds = []
    for city in ("Oslo", "Rome"):
        rounds += ask(f"weather in {city}?")
        called = said(at, rounds, tools=[WEATHER])
        use = called.content[-1]
        assert called.stop_reason == "tool_use" and use.name == "weather" and "city" in use.input, called
        with client(at).messages.stream(model=LLAMA, messages=rounds, max_tokens=256, tools=[WEATHER]) as stream:
            streamed = stream.get_final_message()
        assert streamed.content[-1].input == use.input and streamed.usage.output_tokens > 1, streamed
        rounds += [{"role": "assistant", "content": [block.to_dict() for block in called.content]},
                   {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}]}]
        answered = said(at, rounds, tools=[WEATHER])
        assert answered.stop_reason == "end_turn" and answered.content[0].text, answered
        rounds += [{"role": "assistant", "content": answered.content[0].text}]


@tries("structured output")
def structured(at):
    # As Anthropic has it: a tool that the model is made to call.
    told = said(at, ask("somebody"), tools=[PERSON], tool_choice={"type": "tool", "name": "person"}).content[-1].input
    assert set(told) == {"name", "age"}, told


@tries("vision")
def vision(at):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    seen = said(at, [{"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}], VISION)
    assert seen.usage.input_tokens > 1000, "a picture is read, too"


@tries("errors")
def errors(at):
    def kind(error):
        assert error.body["type"] == "error", error.body
        return error.body["error"]["type"]

    # The vendor's refusals in its own envelope or in Anthropic's, and the gate's, are told in Anthropic's.
    for form in ("envelope", "anthropic"):
        refused = lambda code, expected: kind(fails(expected, lambda: said(at, ask(), simulate=f"{code};form={form}")))
        assert refused("3040", anthropic.APIStatusError) == "overloaded_error"
        assert refused("10000", anthropic.AuthenticationError) == "authentication_error"
        assert refused("5006", anthropic.BadRequestError) == "invalid_request_error"

    def broken():
        with client(at).messages.stream(
                model=LLAMA, max_tokens=8, messages=ask(), extra_headers={"x-simulate": "stream-error"}) as stream:
            stream.get_final_message()
    kind(fails(anthropic.APIStatusError, broken))
    assert kind(fails(anthropic.BadRequestError, lambda: said(at, ask(), "@cf/nobody/knows"))) == "invalid_request_error"
    if at == BASE:
        assert kind(fails(anthropic.BadRequestError, lambda: said(at, ask(), ""))) == "invalid_request_error"
    assert kind(fails(anthropic.APIStatusError, lambda: said(at, ask(), PENNILESS, 3), 402)) == "billing_error"


@tries("429")
def refused(at):
    obeyed(lambda text: said(at, ask(text), ONE_A_SECOND, 8))


@tries("cancel")
def cancel(at):
    def leave():
        with client(at).messages.stream(model=LLAMA, max_tokens=64, messages=ask("leave"), extra_headers=STALLED) as stream:
            next(iter(stream.text_stream))
    left(leave)


@tries("fifty at once")
def fifty(at):
    async def go():
        async with anthropic.AsyncAnthropic(base_url=at, api_key="any", max_retries=0) as many:
            one = lambda n: many.messages.create(model=LLAMA, max_tokens=64, messages=ask(f"{n} at once"))
            return await asyncio.gather(*map(one, range(50)))
    assert all(reply.content[0].text for reply in asyncio.run(go()))


harness(BASE, f"{TWIN}/client/v4/accounts/acc/ai")

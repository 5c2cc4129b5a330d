"""What the clients' tests share: `python CLIENT.py BASE_URL`, with the gate's address and the simulator behind it."""
import os
import re
import sys
import time
import urllib.request

BASE = sys.argv[1]
V1 = f"{BASE}/v1"
# A server that compares each reply of the gate's with the vendor's, and the path there that a client of OpenAI's form needs.
TWIN = os.environ.get("TOLLGATE_TWIN", "")
VENDORS = f"{TWIN}/client/v4/accounts/acc/ai/v1"
LLAMA = "@cf/meta/llama-3.2-1b-instruct"
# One that tells its usage at a stream's end, as increments with a native close, and in every chunk.
MODELS = (LLAMA, "@cf/google/gemma-4-26b-a4b-it", "@cf/qwen/qwen3-30b-a3b-fp8")
GEMMA = MODELS[1]
VISION = "@cf/meta/llama-3.2-11b-vision-instruct"
# The gate lets one call a second through to this one, and lets none wait.
ONE_A_SECOND = "@cf/meta/llama-3.2-3b-instruct"
# A key's budget for this one is too small for any call.
PENNILESS = "@cf/meta/llama-3.1-8b-instruct-fp8"
BGE, QWEN = "@cf/baai/bge-m3", "@cf/qwen/qwen3-embedding-0.6b"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def ask(text="Why is the sky blue?"):
    return [{"role": "user", "content": text}]


def see():
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]


WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}}}

# The ways in which the vendor's models tell a stream's usage: the simulator takes them from this header.
STYLES = [{"x-simulate-usage": style} for style in ("end", "running", "increments", "none")]
# A stream that begins, and then says nothing more.
STALLED = {"x-simulate": "stall-mid"}
cells = []


def tries(thing):
    """Marks the function that tries this thing, at an address that it is given."""
    return lambda cell: cells.append((thing, cell)) or cell


def harness(ours=V1, vendors=VENDORS):
    """Tries all at the gate. Then the same on the vendor's paths, where the replies are compared; what a client makes of the
    vendor's quirks there is its own."""
    for thing, cell in cells:
        cell(ours)
        print(f"tried: {thing};")
    for thing, cell in cells:
        if thing not in ("429", "cancel", "fifty at once"):
            try:
                cell(vendors)
            except BaseException as error:
                print(f"on the vendor's paths, {thing}: {error!r:.200}")


def metric(name, label):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(f"{os.environ['TOLLGATE_ADMIN']}/metrics").read().decode()
    lines = re.findall(rf"^{name}\{{(.*)\}} (.*)$", text, re.M)
    return sum(float(value) for labels, value in lines if label in labels)


def obeyed(call):
    """Calls until one was refused before it was answered: on a slow machine a call may take longer than its turn."""
    refused = lambda: metric("tollgate_rate_limit_rejected_total", f'model="{ONE_A_SECOND}"')
    before = refused()
    for n in range(20):
        call(f"turn {n}")
        if refused() > before:
            return
    raise AssertionError("no call came before its turn")


def left(leave):
    """The gate has seen the client go."""
    aborted = lambda: metric("tollgate_requests_total", 'outcome="aborted"')
    before = aborted()
    leave()
    for _ in range(600):
        if aborted() > before:
            return
        time.sleep(0.05)
    raise AssertionError("the gate did not see the client go")


def fails(kind, call, status=None):
    try:
        call()
    except kind as error:
        assert status is None or error.status_code == status, error
        return error
    raise AssertionError("it was answered")

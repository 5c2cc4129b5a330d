"""What the clients' tests share: `python CLIENT.py BASE_URL`, with the gate's address and the simulator behind it."""
import sys

BASE = sys.argv[1]
V1 = f"{BASE}/v1"
LLAMA = "@cf/meta/llama-3.2-1b-instruct"
# One that tells its usage at a stream's end, as increments with a native close, and in every chunk.
MODELS = (LLAMA, "@cf/google/gemma-4-26b-a4b-it", "@cf/qwen/qwen3-30b-a3b-fp8")
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

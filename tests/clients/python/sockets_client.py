"""Speech through the gate: Python's websockets on the vendor's paths, Deepgram's SDK on its own with another base URL."""
import asyncio
import json

import websockets
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment

from gate import BASE

WS = BASE.replace("http", "ws", 1)
NOVA, PCM, FRAME = "@cf/deepgram/nova-3", "encoding=linear16&sample_rate=16000", bytes(640)


async def listen(path, **options):
    async with websockets.connect(f"{WS}{path}", **options) as socket:
        for _ in range(100):
            await socket.send(FRAME)
        # The vendor answers: the gate does not.
        await (await socket.ping())
        await socket.send(json.dumps({"type": "CloseStream"}))
        messages = [json.loads(message) async for message in socket]
    assert socket.close_code == 1000, socket.close_code
    return messages


async def main():
    bearer = {"additional_headers": {"Authorization": "Bearer any"}}
    for path, options in [
        (f"/client/v4/accounts/acc/ai/run/{NOVA}?{PCM}", bearer),
        (f"/run/{NOVA}?{PCM}", bearer),
        (f"/v1/acc/gw/workers-ai?model={NOVA}&{PCM}", {"additional_headers": {"cf-aig-authorization": "Bearer any"}}),
        (f"/v1/acc/gw/workers-ai?model={NOVA}&{PCM}", {"subprotocols": ["cf-aig-authorization.any"]}),
    ]:
        messages = await listen(path, **options)
        assert messages[-1]["type"] == "Metadata" and messages[-1]["duration"] == 2.0, (path, messages)
    try:
        await listen(f"/run/@cf/meta/llama-3.2-1b-instruct?{PCM}", **bearer)
        raise AssertionError("a model without a socket")
    except websockets.exceptions.InvalidStatus as refused:
        assert refused.response.status_code == 400 and b"has no WebSocket" in refused.response.body, refused.response


asyncio.run(main())

gate = DeepgramClientEnvironment(base=BASE, production=WS, agent=WS, agent_rest=BASE)
deepgram = DeepgramClient(api_key="any", environment=gate)
with deepgram.listen.v1.connect(model="nova-3", encoding="linear16", sample_rate=16000) as socket:
    for _ in range(100):
        socket.send_media(FRAME)
    socket.send_close_stream()
    kinds = [message.type for message in socket]
assert kinds[-1] == "Metadata" and "Results" in kinds, kinds
with deepgram.listen.v2.connect(model="flux-general-en", encoding="linear16", sample_rate=16000) as socket:
    for _ in range(100):
        socket.send_media(FRAME)
    socket.send_close_stream()
    kinds = [message.type for message in socket]
assert kinds[0] == "Connected" and "TurnInfo" in kinds, kinds
with deepgram.speak.v1.connect(model="aura-2-thalia-en", encoding="linear16", sample_rate=24000) as socket:
    from deepgram.speak.v1.types import SpeakV1Close, SpeakV1Flush, SpeakV1Text
    socket.send_text(SpeakV1Text(type="Speak", text="Hello there."))
    socket.send_flush(SpeakV1Flush(type="Flush"))
    socket.send_close(SpeakV1Close(type="Close"))
    sound = b"".join(message for message in socket if isinstance(message, bytes))
assert len(sound) == 12 * 24000 // 15 * 2, len(sound)

"""A shop in two tiers, as somebody might run it on Swarm, knowing of no mesh.

    app.py web        a page, its WebSocket and /who, which asks the next tier by its service's name
    app.py api        that tier
    app.py greeter    gRPC: one answer, many, and a conversation

The libraries (aiohttp, grpcio) lie beside it in lib/.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

HOST = socket.gethostname()
GRACE = 8.0  # seconds that a call has when the task ends

PAGE = """<!doctype html><title>shop</title><h1>shop</h1><p id=said></p>
<script>
const socket = new WebSocket(`wss://${location.host}/ws`);
const next = () => new Promise((done, failed) => {
  socket.onmessage = event => done(event.data);
  socket.onclose = socket.onerror = () => failed("the WebSocket has ended");
});
window.heard = next().then(text => document.getElementById("said").textContent = text);
window.say = text => { socket.send(text); return next(); };
socket.onopen = () => socket.send("hello");
</script>
<ul>
"""
PAGE += "".join(f"<li>ware number {number}, in stock\n" for number in range(100))


async def web() -> None:
    from aiohttp import ClientSession, web

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html", headers={"X-Task": HOST})

    async def who(request: web.Request) -> web.Response:
        async with request.app[api].get("http://api:8080/") as answer:
            behind = await answer.json()
        forwarded = request.headers.get("X-Forwarded-For", "")
        scheme = request.headers.get("X-Forwarded-Proto", "")
        return web.json_response({"web": HOST, "api": behind["api"], "client": forwarded, "scheme": scheme})

    async def echo(request: web.Request) -> web.WebSocketResponse:
        talk = web.WebSocketResponse()
        await talk.prepare(request)
        async for message in talk:
            await talk.send_str(f"{HOST} heard {message.data}")
        return talk

    api = web.AppKey("api", ClientSession)
    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/who", who), web.get("/ws", echo)])
    async with ClientSession() as session:
        app[api] = session
        await _serve(app)


async def api() -> None:
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"api": HOST})

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    await _serve(app)


async def _serve(app: object) -> None:
    from aiohttp import web

    assert isinstance(app, web.Application)
    runner = web.AppRunner(app, shutdown_timeout=GRACE)
    await runner.setup()
    await web.TCPSite(runner, port=8080).start()
    await _told_to_stop()
    await runner.cleanup()


async def greeter() -> None:
    import grpc

    async def hello(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        name = json.loads(request)["name"]
        if name == "nobody":
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no nobody")
        context.set_trailing_metadata((("x-task", HOST),))
        told = dict(context.invocation_metadata())
        return json.dumps({"hello": name, "task": HOST, "client": told.get("x-forwarded-for", "")}).encode()

    async def count(request: bytes, _: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        for number in range(json.loads(request)["to"]):
            yield json.dumps(number).encode()

    async def talk(said: AsyncIterator[bytes], _: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for one in said:
            yield one.upper()

    methods = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Greeter", methods),))
    server.add_insecure_port("0.0.0.0:50051")
    await server.start()
    await _told_to_stop()
    await server.stop(GRACE)


async def _told_to_stop() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
    asyncio.run({"web": web, "api": api, "greeter": greeter}[sys.argv[1]]())

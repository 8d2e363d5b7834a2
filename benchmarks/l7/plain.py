"""A reverse proxy as one would write it with aiohttp in an hour: what our own HTTP side has to be worth.

python -m benchmarks.l7.plain PORT APPLICATION [CERTIFICATE]
"""

import ssl
import sys

import uvloop
from aiohttp import ClientSession, TCPConnector, web

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host"}


async def make(application: int) -> web.Application:
    session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {
            "Host": request.host,
            "X-Forwarded-For": request.remote or "",
            "X-Forwarded-Proto": request.scheme,
            "X-Forwarded-Host": request.host,
            "X-Real-Ip": request.remote or "",
        }
        url = f"http://127.0.0.1:{application}{request.rel_url}"
        body = request.content if request.can_read_body else None
        async with session.request(request.method, url, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


if __name__ == "__main__":
    uvloop.install()
    context = None
    if len(sys.argv) > 3:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[3])
    web.run_app(
        make(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ssl_context=context,
        print=None,
        access_log=None,
    )

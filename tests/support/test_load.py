"""The load's books, with the program itself run against a server that answers, refuses and hangs up."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.load import Ended, Load


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"hostname": "me", "remote": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_every_request_is_accounted_for(server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    load = Load("both", (), 100, (server, nobody))
    load.more(10)
    load.more(3, lambda one: one.by == "me")
    ended = load.stop()
    assert {(one.target, one.by, one.remote) for one in ended if not one.error} == {
        (server, "me", "127.0.0.1")
    }
    assert {one.target for one in load.failures()} == {nobody}
    assert abs(sum(one.target == server for one in ended) - len(ended) / 2) <= 1
    assert "ConnectionRefusedError" in str(load)


def test_a_request_reads_well() -> None:
    assert "10.0.0.1:80: answered by abc after 0.50 s" in str(Ended(10.0, 10.5, "10.0.0.1:80", "", "abc"))

"""A network namespace with our redirect in it, as a captured container has: for the time of a measurement."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mesh.kernel.rules import DnsPorts, container_rules

ALIVE = "add element ip mesh alive { udp timeout 1h, tcp timeout 1h }"  # nobody refreshes it here


@contextmanager
def redirected(name: str, port: int) -> Iterator[str]:
    """A namespace in which 127.0.0.11:53 leads to `port`, over UDP and TCP. Yields its path. Needs root."""
    rules = container_rules({}, DnsPorts(port, port), False)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "address", "add", "127.0.0.11/8", "dev", "lo")  # some listen on nothing else
        _run("ip", "netns", "exec", name, "nft", "-f", "-", stdin=f"{rules}\n{ALIVE}\n")
        yield f"/run/netns/{name}"
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, input=stdin, text=True, check=True, timeout=30)

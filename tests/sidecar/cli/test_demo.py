"""The demo as its user runs it: it explains itself, shows what it should, and ends cleanly."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.catalog import codec

ROOT = Path(__file__).parents[3]

demo = pytest.importorskip("sidecar.cli.demo", reason="needs the whole sidecar", exc_type=ImportError)


def start(seconds: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo"],
        cwd=ROOT,
        env=environment | {"DEMO_SECONDS": seconds},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_until(process: subprocess.Popen[str], mark: str) -> Iterator[str]:
    assert process.stdout
    for line in process.stdout:
        yield line
        if mark in line:
            return


def test_it_shows_names_balancing_and_failover_and_ends_on_a_signal() -> None:
    with start("") as process:
        shown = "".join(lines_until(process, "It goes on running"))
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0, shown + rest
    assert "web        -> 127.1.0.2\n" in shown
    assert "tasks.web  -> 127.1.0.11 127.1.0.12 127.1.0.13\n" in shown
    balanced, failed_over = shown.split("Balancing", 1)[1].split("Failover", 1)
    assert [line for line in balanced.splitlines() if " x " in line] == [
        f"  3 x hello from web.{i} (127.1.0.1{i})" for i in (1, 2, 3)
    ]
    assert "later tasks.web -> 127.1.0.11 127.1.0.13\n" in failed_over
    assert "failed" not in failed_over
    assert "\x1b" not in shown


def test_it_ends_by_itself() -> None:
    with start("0.5") as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert said.endswith("stopped.\n")


def test_a_bad_limit_is_told() -> None:
    with start("soon") as process:
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (
        2,
        "mesh: environment: DEMO_SECONDS: must be a number of seconds, not 'soon'\n",
    )


@pytest.mark.parametrize("count", [1, 3], ids=["one loopback address", "many"])
@pytest.mark.parametrize("dead", ["", "web.1"])
def test_its_catalogue_is_a_good_one(count: int, dead: str) -> None:
    addresses = demo.TASK_ADDRESSES if count == 3 else (demo.LOOPBACK,)
    backends = [demo.DemoBackend(f"web.{i}", address, 8080) for i, address in enumerate(addresses, start=1)]
    read = codec.parse(demo.catalogue(backends, 8000, dead), "demo")
    assert len(read.services["web"].serving()) == count - bool(dead)

"""What a start costs: CPU time of the sidecar and its helper processes until /readyz says 200.

    python -m benchmarks.start [--rounds 5]

The sidecar reads a small catalogue file, answers names on loopback and opens no published port. The first
round is not counted: it compiles modules, which an image brings with it, and fills the disk cache.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.failure import BenchmarkFailed
from benchmarks.processes import cpu_seconds

ROOT = Path(__file__).parents[1]
READY_WITHIN = 60.0  # seconds
LOOK_EVERY = 0.02  # seconds between two requests to /readyz
LIMIT = 1.5  # seconds of CPU time that a start may take
CATALOGUE = (
    "networks: {inside: {subnet: 127.9.0.0/16}}\nservices: {web: {networks: {inside: {vip: 127.9.0.2}}}}\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="CPU time to /readyz")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    try:
        start_once()
        costs = [start_once() for _ in range(rounds)]
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.start: {failed}")
    median = statistics.median(costs)
    print(
        f"CPU time from start to /readyz: median {median:.2f} s of {', '.join(f'{one:.2f}' for one in costs)}"
    )
    print(f"within {LIMIT} s: {'yes' if median <= LIMIT else 'no'}")


def start_once() -> float:
    """CPU seconds of one start. Raises BenchmarkFailed."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "run"],
            env=environment(Path(folder), port),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_ready(process, port)
            return cpu_seconds(process.pid)
        finally:
            process.terminate()
            process.wait()


def environment(folder: Path, port: int) -> dict[str, str]:
    (folder / "catalog.yml").write_text(CATALOGUE)
    return os.environ | {
        "MESH_CATALOG": str(folder / "catalog.yml"),
        "MESH_DNS_LISTEN": "127.0.0.1:0",
        "MESH_DNS_UPSTREAMS": "127.0.0.1:1",
        "MESH_METRICS_LISTEN": f"127.0.0.1:{port}",
        "MESH_ADMIN_SOCKET": "off",
        "MESH_STATE_DIR": str(folder),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            raise BenchmarkFailed(f"the sidecar ended with status {process.returncode}")
        if is_ready(port):
            return
        time.sleep(LOOK_EVERY)
    raise BenchmarkFailed(f"the sidecar was not ready within {READY_WITHIN:.0f} s")


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()

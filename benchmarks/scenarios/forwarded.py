"""Answers of another server, which have been fetched before."""

from collections.abc import Iterator

from benchmarks.dnsperf import Load
from benchmarks.measure import Command, Launch
from benchmarks.peers import authority
from benchmarks.scenario import FEW, FIRST_PORT, PROBE, Comparison, Run, numbered_peers, ours
from benchmarks.served import names

UPSTREAM_PORT = 15300


def forwarded(run: Run) -> Iterator[Comparison]:
    """Authoritative servers are no peers here; one of them is who is asked."""
    load = Load(run.queries(names(FEW)), run.seconds)
    # Ours knows one service that nobody asks for, so that every question is one for upstream.
    servers: list[Launch] = [ours(FIRST_PORT, "--names", "0", "--upstream", str(UPSTREAM_PORT))]
    for port, peer in numbered_peers():
        if peer.forwarding is not None:
            argv = peer.forwarding(run.place(port), UPSTREAM_PORT)
            servers.append(Command(peer.name, argv, port, PROBE))
    argv = authority(run.place(UPSTREAM_PORT), names(FEW))
    with Command("authority", argv, UPSTREAM_PORT, PROBE).running():
        yield Comparison(f"forwarded: {FEW:,} names of another server, cached", servers, load)

"""The library behind the sidecar: what a Swarm cluster is, and every decision made about its traffic.

    catalog     WHAT the cluster is      one immutable snapshot, changed only by swapping
    discovery   how we LEARN it          Docker's API, a manager's feed, or a file
    dns         ANSWER names             per asker, per network, like 127.0.0.11 and better
    balance     CHOOSE a task            policies over the endpoints that may be used now
    kernel      CARRY in the kernel      nftables rules computed from the snapshot, and their upkeep
    relay       CARRY in user space      TCP with half-close and UDP for `mode: proxy`
    net         namespaces and sockets   entering a namespace; the only place that starts tasks
    telemetry   TELL people              metrics, logs, explanations

Data flows one way: discovery publishes a `Change` into `catalog.store.Store`; dns, kernel, relay and
telemetry are told (old snapshot, new snapshot, change) and do work in proportion to the change.

Import rule: `sidecar` (the process) imports `mesh`, never the reverse; pure modules (catalog, decisions)
import no asyncio, socket, ssl, time or random. `make lint` enforces both.
"""

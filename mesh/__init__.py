"""The library behind the sidecar: what a Swarm cluster is, and every decision about its traffic.

    catalog    The cluster as one immutable value, and the cell that holds it
    net        Sockets, namespaces, timers and tasks: the machine, as the rest of the library uses it
    balance    Choosing an endpoint. Pure: clock and chance are arguments
    labels     Labels of services read into values, every fault named by its key. Pure
    peers      What sidecars say to each other, by mutual TLS with the Swarm's own certificates
    discovery  Learning the cluster: from Docker, from a manager's feed, or from a file
    dns        Answering names: a query's bytes in, a reply's bytes out
    kernel     Rules in the kernel, computed from the snapshot and kept as they should be
    relay      Published ports carried in user space: TCP and UDP
    http       HTTP between clients and tasks: routed, changed, balanced
    acme       Certificates from an authority by ACME (RFC 8555), ordered by one node and held by all
    telemetry  Telling people: metrics, logs, explanations, diagnoses

Data flows one way. `discovery` publishes a `Change` into `catalog.store.Store`. Subscribers (dns, kernel,
relay, http, telemetry) get the old snapshot, the new one and the change, and work in proportion to the
change.

A package imports only from those above it in this list; `sidecar` imports `mesh`, never the reverse. Pure
modules import no asyncio, socket, ssl, time or random. `make lint` enforces all three.
"""

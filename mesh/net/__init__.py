"""Sockets, namespaces, timers and tasks: the machine, as the rest of the library uses it.

tasks           The only place that starts asyncio tasks: every task has a name, an owner and an end
backoff         The growing pause between two tries of something that fails. Pure
reconciler      The loop that is woken, works, and tries again what failed
isolation       A callback that raises ends what it belongs to, and nothing else
limits          Fair shares of what is limited: connections, descriptors, places, turns
netns           Entering another network namespace: for one call on this thread
setns           setns(2): the calling thread enters a network namespace. Imports no asyncio
netlink         The few netlink messages that we need, packed and read with `struct`
routes          Policy routes by mark: a rule `fwmark M lookup M`
proc            Who is bound where: /proc/net/{tcp,udp} of a namespace, and the process behind a socket
own_addresses   Does an address lead to this node itself? The kernel's routing table knows
bound_listener  Listening sockets, also on addresses that somebody else holds for a while
acceptor        Accepting from a listening socket
tls_listener    A listening socket with TLS for an asyncio server
socket_pool     Unconnected sockets of another namespace, made in batches
poller          Readiness of many sockets behind one descriptor of the loop
timers          Time limits of many connections on one timer of the loop
readers         Readers of sockets that live on after an error, on uvloop
idle_timer      A time limit that is moved with every request and hardly ever reached
would_block     What a non-blocking socket raises when it can do no more for now, plain or with TLS
streams         Writing to asyncio's streams where the other end may be gone: it is an OSError
atomic_file     Small files of ours that a power failure must not cut in two
"""

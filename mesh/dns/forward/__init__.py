"""THE OTHERS: whom we ask what is not ours, and how.

    servers      who they are       text → server; a route is where a question may go, and in what manner
    resolvconf   what a file says   text of resolv.conf(5) → servers and options
    host         the host's own     the configured servers, else those of the file, followed as it changes
    messages     what is said       our query for somebody's, and a reply as it is kept
    received     what is meant      a reply's bytes: does it match, what does it say, how does it read later
    exchange     on the wire        one query over UDP or TCP, and the reply that matches it
    secure       over TLS           one kept connection per server
    attempt      one try            in the way that suits a server: case, EDNS, transport
    health       how they do        latency and failure of each; who is asked first, and when the next
    race         one question       tries one after the other or side by side; the first answer wins
    known        all of them        health by server, probes of those that fail
    loops        the way back       recognising a question of ours that returns to us
    ourselves    the shortest one   is a server an address on which we listen?
    forwarder    the asking         each question once at a time, a fair share for each asker

servers, resolvconf, messages, received, health and loops decide; exchange, secure, race, known and forwarder
act.
"""

from mesh.dns.forward.route import DnsServer, UpstreamRoute, host_socket

__all__ = ["Route", "Server", "host_socket"]

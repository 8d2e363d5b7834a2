"""Forwarding what is not a name of the Swarm, to the servers that its asker may reach.

forward         What is not ours: a question goes to the servers that its asker may reach
upstream_cache  Upstreams' replies, kept once for all who may ask the same servers
route           Servers of the world outside, as text and as values, and the ways to them
resolvconf      resolv.conf(5) as text → what it means for a forwarder
host_servers    The host's servers: the configured ones, else those of its resolv.conf
self_check      Is a server one of the addresses on which we listen ourselves?
dispatcher      The asking: each question once at a time, of one server after the other or beside it
query_builder   What is sent to upstreams and what comes back, as bytes
query_race      One question and its tries: a state machine around timers and tasks
query_attempt   One try at one server: asked in the way that suits it, until there is a reply that matches
transport       One query on the wire, on a socket of its own, and the reply that matches it
dot             DNS over TLS (RFC 7858): one connection per server
reply_parser    Upstreams' replies as bytes: is one the reply to our query, what does it say
reply_rewrite   An upstream's reply as it is passed on to one asker: its id, its spelling, its EDNS
server_pool     The servers that were asked: the health of each, and probes of those that fail
server_health   How each server does, and in which order servers are asked. Pure: time is an argument
loop_detection  Questions of ours that come back to us: an upstream, or an upstream's upstream
"""

from mesh.dns.forward.route import DnsServer, UpstreamRoute, host_socket

__all__ = ["DnsServer", "UpstreamRoute", "host_socket"]

"""Bytes to messages and back, read strictly. No sockets: only `h2_protocol` looks at a clock.

h1_head           Heads of HTTP/1 messages
h1_body           Where a body ends: chunked coding read strictly and written anew
h1_states         The states of an HTTP/1.1 connection, and the table of transitions of each side
h1_protocol       One HTTP/1.1 connection, each side of it: bytes in, heads and payload out. No I/O
h2_protocol       One HTTP/2 connection as frames: bytes in, calls on its side; calls, bytes out. No I/O
frame_budget      What one HTTP/2 peer may spend on frames that achieve nothing
hpack             HPACK (RFC 7541) by the library hpack
h2_headers        Heads between HTTP/2, where they are lists, and HTTP/1, as whose bytes they are kept
path_check        Paths that a server behind us could read as another path than our rules do. One
protected_fields  Fields that say who the client is or what it has asked for: who may send them
proxy_headers     What of a head goes on to the other side: hop-by-hop fields out, who the client is in
"""

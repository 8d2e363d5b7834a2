"""Bytes to messages and back, read strictly. No sockets: only `h2_protocol` looks at a clock.

h1_head           Heads of HTTP/1 messages, parsed strictly
h1_body           Chunked bodies, decoded and encoded
h1_states         The states of an HTTP/1.1 connection, and the table of transitions of each side
h1_protocol       One HTTP/1.1 connection, each side of it: bytes in, heads and payload out. No I/O
h2_protocol       One HTTP/2 connection as frames: bytes in, calls on its side; calls, bytes out. No I/O
frame_budget      What one HTTP/2 peer may spend on frames that achieve nothing
hpack             HPACK (RFC 7541) by the library hpack
h2_headers        Converts heads between the lists of HTTP/2 and the bytes of HTTP/1
path_check        Paths that an endpoint could read differently from the routers' rules
protected_fields  Fields that name the client or its original request: who may send them
proxy_headers     Makes the head for the other side: no hop-by-hop fields, but fields that name the client
"""

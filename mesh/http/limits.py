"""Every limit of the HTTP side that no label sets, with its reason. Seconds, bytes, counts."""

READ_BYTES = 64 * 1024  # one read; also most that a direction holds back
READS_AT_ONCE = 16  # of one connection, then it is the turn of others
RESPONSE_HEAD_MAX = 64 * 1024  # of an endpoint's head; applications set large cookies
HELD_MAX = 4 * READ_BYTES  # of a request's body while its endpoint is being found
REPLAY_MAX = 64 * 1024  # a body up to this is kept so that its request can be sent once more
CONNECTIONS_MAX = 20_000  # clients of one listener
HANDSHAKES_MAX = 1000  # under way at one listener; each holds keys and buffers
HANDSHAKES_PER_ADDRESS = 250  # of these of one client's address (IPv6: its /64)
FEW_CONNECTIONS = 16  # of an address: what has asked before stays although descriptors have run out
SPARED_AT_ONCE = 64  # idle connections closed when there is no place for a newcomer: to find them takes 5 ms
PASSWORDS_MAX = 64  # that wait to be compared; each takes some 50 ms, at most a quarter second
PASSWORDS_PER_SERVICE = 32  # of these for the routers of one service: guessing there leaves places elsewhere
PASSWORDS_PER_CLIENT = 8  # of these of one client's address (IPv6: its /64): others can log in meanwhile
COMPRESSING_MAX = 256  # responses that come in pieces; a coder takes 256 KiB. Beyond it they go as they are
ASIDES_MAX = 1024  # requests of our own at once: who may come in, pages for errors
OUTSIDE_MAX = 64  # of these at once to somebody outside the Swarm; each has a task and a connection
CHECKS_AT_ONCE = 32  # endpoints that are asked whether they are well
MIRRORS_MAX = 256  # copies of requests under way; each may hold a body of REPLAY_MAX
ASIDE_BODY_MAX = 256 * 1024  # of their responses, which are held whole
IDLE_PER_ENDPOINT = 256  # connections kept open for the next request
LINKS_PER_ENDPOINT = 8  # HTTP/2 connections, until requests join those that take no bodies just now
ATTEMPTS = 3  # endpoints tried for one request

HEAD_SECONDS = 15.0  # from a request's first byte to the end of its head
KEEP_ALIVE_SECONDS = 75.0  # between two requests
HANDSHAKE_SECONDS = 10.0  # of TLS
BODY_SECONDS = 60.0  # without a byte of a request's body, or of room for more
RESPONSE_IDLE_SECONDS = 300.0  # without a byte of a response that has begun: events may be rare
ASIDE_SECONDS = 30.0  # for a request of our own: a client waits for it
MIRROR_SECONDS = 30.0  # for a copy
LINGER_SECONDS = 2.0  # for the client to read our last words while it still sends
LINGER_BYTES = 1024 * 1024  # of what it still sends
IDLE_ENDPOINT_SECONDS = 4.0  # many servers close theirs after 5 s; who is first loses no request
TUNNEL_SECONDS = 3600.0  # without a byte, after an upgrade

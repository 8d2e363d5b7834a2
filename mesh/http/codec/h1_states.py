"""The states of an HTTP/1.1 connection, one table for each side. Pure.

A table maps a state to the events that can occur in it, and each event to the state that follows. An event
that a table does not list for a state is a bug of this program, never a fault of the peer: looking it up
raises KeyError. `CLOSE` is possible in every state but the last.

The states are about this connection alone. Whether a request can be retried, and when a timer runs, is
decided by those who own the connection.
"""

from enum import IntEnum, auto


class ServerState(IntEnum):
    """A client's connection, seen from here. IntEnum: its hash is not written in Python."""

    HEAD = auto()  # between two requests, or part of a head has come
    BODY = auto()  # the request's body is coming in
    RESPONSE = auto()  # the request is complete, its response is not
    REFUSED = auto()  # the request was refused: nothing more is parsed, the answer goes out
    TUNNEL = auto()  # after an upgrade: bytes in both directions
    LINGER = auto()  # nothing more is sent; what still comes is discarded while the client reads
    CLOSED = auto()


class ServerEvent(IntEnum):
    REQUEST = auto()  # a head, and no body follows
    REQUEST_WITH_BODY = auto()  # a head, and a body follows
    BODY_END = auto()
    RESPONSE_END = auto()  # the response is sent, and the connection persists
    REFUSAL = auto()  # what came is not HTTP/1.1, or too much
    UPGRADE = auto()  # 101 was sent
    LAST_RESPONSE_END = auto()  # the response is sent, and no other follows
    CLOSE = auto()


class ClientState(IntEnum):
    """A connection to an endpoint, seen from here."""

    CONNECTING = auto()  # the transport is not ready
    IDLE = auto()  # before a request
    HEAD = auto()  # a request is being sent or was sent; the response's head is not complete
    BODY = auto()  # the response's body is coming in
    TUNNEL = auto()  # after an upgrade: bytes in both directions
    CLOSED = auto()


class ClientEvent(IntEnum):
    CONNECTED = auto()
    REQUEST = auto()  # its head is encoded
    RESPONSE = auto()  # the head of the final response
    UPGRADE = auto()  # 101 was received
    RESPONSE_END = auto()  # the response is complete, and the connection persists
    CLOSE = auto()


SERVER_TRANSITIONS: dict[ServerState, dict[ServerEvent, ServerState]] = {
    ServerState.HEAD: {
        ServerEvent.REQUEST: ServerState.RESPONSE,
        ServerEvent.REQUEST_WITH_BODY: ServerState.BODY,
        ServerEvent.REFUSAL: ServerState.REFUSED,
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.BODY: {
        ServerEvent.BODY_END: ServerState.RESPONSE,
        ServerEvent.REFUSAL: ServerState.REFUSED,
        ServerEvent.LAST_RESPONSE_END: ServerState.LINGER,  # the response did not wait for the body
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.RESPONSE: {
        ServerEvent.RESPONSE_END: ServerState.HEAD,
        ServerEvent.REFUSAL: ServerState.REFUSED,  # a complete request, but more bytes than may be held
        ServerEvent.UPGRADE: ServerState.TUNNEL,
        ServerEvent.LAST_RESPONSE_END: ServerState.LINGER,
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.REFUSED: {
        ServerEvent.LAST_RESPONSE_END: ServerState.LINGER,
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.TUNNEL: {
        ServerEvent.LAST_RESPONSE_END: ServerState.LINGER,  # the endpoint has ended
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.LINGER: {
        ServerEvent.CLOSE: ServerState.CLOSED,
    },
    ServerState.CLOSED: {},
}

CLIENT_TRANSITIONS: dict[ClientState, dict[ClientEvent, ClientState]] = {
    ClientState.CONNECTING: {
        ClientEvent.CONNECTED: ClientState.IDLE,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.IDLE: {
        ClientEvent.REQUEST: ClientState.HEAD,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.HEAD: {
        ClientEvent.RESPONSE: ClientState.BODY,
        ClientEvent.UPGRADE: ClientState.TUNNEL,
        ClientEvent.RESPONSE_END: ClientState.IDLE,  # head and body came in one read
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.BODY: {
        ClientEvent.RESPONSE_END: ClientState.IDLE,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.TUNNEL: {
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.CLOSED: {},
}

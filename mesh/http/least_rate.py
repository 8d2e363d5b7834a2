"""The least rate at which a client has to send a body and to read a response. Pure.

A client that sends or takes a byte a minute would hold a connection, a task and some memory for as long as it
likes. Reads and writes only add to a count; when a time limit is due, the count says whether it begins anew.

What must not be cut: a body that is quiet because the task does not take it (its limit does not run then);
streams of gRPC and WebSockets (they have a limit of their own); bodies of unknown length, which may be
streams of rare messages: each address may have some of those.
"""

from mesh.http.byte_budget import ByteAccount

LEAST_BYTES = 240  # a second; Kestrel's. A modem of 1990 is as fast


class BodyPace:
    """Of one request's body. `end` it with the request."""

    __slots__ = ("_account", "_declared", "_slow", "received")

    def __init__(self, account: ByteAccount, declared: bool) -> None:
        """`declared`: how long it is was said at the beginning."""
        self._account = account
        self._declared = declared
        self._slow = False  # it has one of its address's places for slow ones
        self.received = 0  # bytes since the last look

    def keeps_up(self, seconds: float) -> bool:
        """Was enough received in these seconds? A new look begins."""
        received, self.received = self.received, 0
        if received >= LEAST_BYTES * seconds:
            return True
        if self._declared or not received:
            return False
        self._slow = self._slow or self._account.begin_slow()
        return self._slow

    def end(self) -> None:
        if self._slow:
            self._slow = False
            self._account.end_slow()


class ReaderPace:
    """Of a client that does not take all that is sent to it. What the kernel still holds is not taken."""

    __slots__ = ("_unsent", "sent")

    def __init__(self, unsent: int) -> None:
        """`unsent`: bytes in the kernel that the client has not acknowledged."""
        self._unsent = unsent
        self.sent = 0  # bytes that the kernel took since the last look

    def keeps_up(self, unsent: int, least: float) -> bool:
        """Has the client taken so many bytes? A new look begins."""
        taken = self.sent + self._unsent - unsent
        self.sent, self._unsent = 0, unsent
        return taken >= least

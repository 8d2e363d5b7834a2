"""The bytes that are held for one HTTP/1.1 client, by kind. Pure.

Small requests that are answered at once are not counted: a connection makes its `ClientLoad` when it holds
more than `byte_budget.FREE_BYTES`.
"""

from mesh.http.byte_budget import ByteAccount, ByteBudget, HeldBytes, Over
from mesh.http.codec.proxy_headers import ClientInfo


def account_of(client: ClientInfo) -> ByteAccount:
    """The account of a connection. Where the process has no budget, it is one of the connection alone."""
    return client.account or ByteBudget().account(client.client)


class ClientLoad:
    """Each method sets the bytes of one kind. It returns the limit that they would exceed, if any; then
    nothing has changed."""

    __slots__ = ("_body", "_head", "_response")

    def __init__(self, account: ByteAccount) -> None:
        self._head = HeldBytes(account)
        self._body = HeldBytes(account)  # of the request, which its exchange does not take yet
        self._response = HeldBytes(account)  # which the client does not take yet

    def hold_head(self, size: int) -> None:
        """A head that is complete, or the part of it that has come. Raises RequestRefused."""
        if (over := self._head.set(size)) is not None:
            raise over.refused

    def hold_body(self, size: int) -> Over | None:
        return self._body.set(size)

    def hold_response(self, size: int) -> Over | None:
        return self._response.set(size)

    def release_request(self) -> None:
        self._head.set(0)
        self._body.set(0)

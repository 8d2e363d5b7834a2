"""Pickled messages, for processes that hold the same privileges as the sidecar. On its way out."""

import pickle

from sidecar.workers.messages import Messages


class PickledMessages(Messages):
    def __init__(self) -> None:
        super().__init__(())

    def encode(self, message: object) -> bytes:
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)

    def decode(self, body: bytes) -> object:
        return pickle.loads(body)

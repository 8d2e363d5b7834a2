"""Keeping an HTTP surface on its address, although somebody else may hold the port for a while.

Often this is our own predecessor, which still drains: Swarm starts a task anew as soon as a node is active
again. So a port that is taken is named as a fault, and tried again until it is free.
"""

import logging
import socket
from collections.abc import Callable

from aiohttp import web

from mesh.errors import KernelError
from mesh.net.bound_listener import BoundListener, bind_backoff, bind_fault
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks
from mesh.telemetry import logs
from sidecar import status_model
from sidecar.admin import api
from sidecar.admin.api import SurfaceServer
from sidecar.config import ListenAddress, UnixSocket

logger = logging.getLogger(__name__)


class Surface:
    """One application in one place, from `start` to `stop`."""

    def __init__(
        self, name: str, app: Callable[[], web.Application], wanted: ListenAddress, tasks: Tasks
    ) -> None:
        self._name = name
        self._app = app
        self._wanted = wanted
        self._server: SurfaceServer | None = None
        self._listener: BoundListener[socket.socket] = BoundListener(self._bind, self._on_fault)
        self._reconciler = Reconciler(tasks, f"surface {name}", self._retry, backoff=bind_backoff())
        self.bound: ListenAddress = wanted

    def shown(self) -> status_model.ListenerView:
        return status_model.ListenerView(self._name, str(self.bound), self._listener.fault)

    async def start(self) -> ListenAddress:
        """Try once; go on in the background if the port is taken. The address bound, or asked for."""
        if not await self._try():
            self._reconciler.start(failed=True)
        return self.bound

    async def stop(self) -> None:
        await self._reconciler.close()
        if self._server is not None:
            await self._server.stop()

    async def _retry(self) -> bool:
        if not await self._try():
            return False
        logs.event(logger, logging.INFO, "port free again", surface=self._name, address=str(self.bound))
        return True

    async def _try(self) -> bool:
        listener = self._listener.try_bind()
        if listener is not None:
            self._server = SurfaceServer(self._app(), self._wanted)
            self.bound = await self._server.serve(listener)
        return self._listener.is_open

    def _bind(self) -> socket.socket:
        port = 0 if isinstance(self._wanted, UnixSocket) else self._wanted.port
        try:
            return api.bind(self._wanted)
        except OSError as error:
            host = str(self._wanted) if isinstance(self._wanted, UnixSocket) else self._wanted.host
            raise KernelError(bind_fault(host, port, error)) from error

    def _on_fault(self, fault: str) -> None:
        logs.event(logger, logging.ERROR, "port taken", surface=self._name, error=fault)

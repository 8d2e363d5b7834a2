"""A callback that raises ends what it belongs to, and nothing else: the boundary around each call.

A poller's round, a timer and a listener call into many connections. One that raises must not keep the others
from their turn, nor stay behind half alive with its socket, its slot and its time limit. So whoever has such
callbacks says with `on_fault` how it is ended whatever its state, and the caller tells the fault here.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mesh.internal_errors import ERRORS


@runtime_checkable
class Endable(Protocol):
    def on_fault(self) -> None:
        """One of its callbacks has raised: close and give back all that it has. It may be called twice."""
        ...


def run(call: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Call it; should it raise, its owner is ended."""
    try:
        call(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - the boundary of a callback
        report_fault(call, error)


def report_fault(call: Callable[..., object], error: Exception) -> None:
    """`call` has raised. Its owner, the object that it is a method of, is ended."""
    owner = getattr(call, "__self__", None)
    if not isinstance(owner, Endable):
        context = {"message": f"callback {call!r}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
        return
    ERRORS.report(f"callback of {type(owner).__name__}", error)
    try:
        owner.on_fault()
    except Exception as again:  # noqa: BLE001 - the boundary of a callback
        ERRORS.report(f"end of {type(owner).__name__}", again)


def count_loop_faults(loop: asyncio.AbstractEventLoop) -> None:
    """What is raised in callbacks that nobody owns is counted and logged like the rest."""
    loop.set_exception_handler(_on_loop_fault)


def _on_loop_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, Exception):
        ERRORS.report("callback of the loop", error)
    else:
        loop.default_exception_handler(context)

"""Keeping a table's `alive` set alive: the fail-open switch of everything we redirect.

Redirects match only while the set's elements have not timed out; whoever lives refreshes them. A beat is one
prebuilt nfnetlink batch on a socket that stays bound to its namespace: no setns, no parsing, no libnftables
(tens of microseconds, so hundreds of containers cost about a percent of a core). It runs on the event loop on
purpose: a loop that hangs must let its redirects expire.

The batch is add, delete, add. Adding an existing element does not re-arm its timeout (seen on 6.18, and the
nftables wiki says so of older kernels); deleting one that has just expired fails; so it is first made
to exist, then replaced, in one transaction that no packet can see half done.
"""

import errno
import os

from mesh.errors import KernelError
from mesh.kernel.netfilter.nfnetlink import batch
from mesh.kernel.netfilter.nft_batch import Batches
from mesh.kernel.netfilter.transaction import Put, Take
from mesh.kernel.rulesets import ALIVE, ALIVE_PROTOCOLS

BEAT_SECONDS = 1.0  # a third of rules.ALIVE_SECONDS: two beats may be late

_ALL = Put(ALIVE, tuple((protocol, "") for protocol in ALIVE_PROTOCOLS))
BATCH = batch((_ALL, Take(ALIVE, ALIVE_PROTOCOLS), _ALL))


class Heartbeat:
    """The beat of one namespace's table, over a socket that whoever made it closes."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def beat(self) -> None:
        """Re-arm. KernelError when the table or its set is missing (somebody flushed the ruleset)."""
        if (refusal := self._batches.send(BATCH)) is not None:
            _, reason = refusal
            raise KernelError(f"heartbeat: {errno.errorcode.get(reason, reason)} {os.strerror(reason)}")

"""Everything that can go wrong and has a name.

    MeshError
    ├── ConfigError        a config or catalogue file is wrong; carries every problem    → exit 2
    ├── DiscoveryError     the engine, a manager or the feed failed to answer            → keep last good
    │   └── EngineUnavailable   no Docker socket, or no daemon behind it
    ├── KernelError        nftables, netlink or a namespace refused what was asked       → logged, retried
    │   └── NamespaceGone       the namespace vanished meanwhile (its container ended)
    ├── WireError          bytes from outside break their protocol                       → FORMERR, drop
    │   └── Refused             HTTP that is not passed on (mesh.http.faults)             → 400 … 505
    ├── CertificateError   the certificate authority refused or did not answer           → told, tried again
    │   └── AccountGone         it does not know our account                             → a new one
    └── Busy               more is asked at once than is answered                        → 503

Anything else that is raised is a bug of ours: logged in full, nothing revealed outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MeshError(Exception):
    """Base of every error this project raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a file: where (file and dotted key) and what, in words for its author."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.message}"


class ConfigError(MeshError):
    """A config or catalogue file is wrong. `problems` lists every fault, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class DiscoveryError(MeshError):
    """A source of the catalogue failed; what is known stays in force."""


class EngineUnavailable(DiscoveryError):
    """The Docker socket is missing, or nothing answers behind it."""


class KernelError(MeshError):
    """The kernel refused a rule, a route or a namespace operation; the message quotes it."""


class NamespaceGone(KernelError):
    """The network namespace no longer exists: its container ended while we worked."""


class WireError(MeshError):
    """Bytes from outside that break their protocol."""


class CertificateError(MeshError):
    """The certificate authority refused, failed or was silent; the message quotes it. `general`: whatever
    else it is asked for now would fail as well."""

    def __init__(self, message: str, *, general: bool = False) -> None:
        super().__init__(message)
        self.general = general


class AccountGone(CertificateError):
    """The certificate authority does not know our account (any more)."""


class Busy(MeshError):
    """More is asked at once than is answered; asking again later helps."""

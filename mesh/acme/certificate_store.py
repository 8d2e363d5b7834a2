"""What this node has of an authority: the account and the certificates, in a folder of their own.

One PEM file for each certificate, key first, readable by root alone: that is the form in which the TLS side
takes certificates from any folder, and in which an operator looks at them. The folder is named after the
authority, so a change from a test authority to the real one begins anew.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mesh.acme.messages import AcmeAccount, CertificateUpdate, Inventory, decode_account, encode_account
from mesh.acme.schedule import CERTIFICATES_MAX, Life, Names
from mesh.errors import DiscoveryError
from mesh.net.atomic_file import replace_file

ACCOUNT, THUMBPRINT, SUFFIX = "account.json", "thumbprint", ".pem"
FILE_MAX = 256 * 1024  # bytes
SHOWN_MAX = 200  # characters of a name in the name of a file
EXPIRED_SECONDS = 7 * 86400.0  # that a certificate is kept after its end

# The first one is the name of a file. Not every label of DNS is a host's (RFC 1123): `_` is in use.
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-][a-z0-9_.-]*")

logger = logging.getLogger(__name__)


class AcmeStore:
    """`load` once. What changes is written on a thread."""

    def __init__(self, state_dir: str, directory: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", directory.partition("://")[2]).strip("-.")
        self.directory = directory
        self.folder = Path(state_dir) / "acme" / (name or "authority")
        self.account: AcmeAccount | None = None
        self.thumbprint = ""
        self.fault = ""
        self.serving = True  # this node has entry points with TLS
        self._certificates: dict[Names, tuple[Life, str]] = {}
        self._unsaved: dict[str, bytes] = {}  # file → what is to be written
        self._changed: set[asyncio.Event] = set()
        self.on_change: Callable[[], None] = lambda: None

    # --- what there is ---

    def have(self) -> dict[Names, Life]:
        return {names: life for names, (life, _) in self._certificates.items()}

    def have_told(self) -> Inventory:
        """What a manager is to be told that we have."""
        certificates = {file_of(names): life.begins for names, (life, _) in self._certificates.items()}
        made = self.account.made if self.account else 0.0
        return Inventory(self.directory, self.thumbprint, made, certificates, self.serving)

    def newer(
        self, have: Inventory, *, to_manager: bool, wanted: Set[str] | None = None
    ) -> CertificateUpdate | None:
        """What of ours another node lacks; None: nothing. `wanted`: who is no manager gets certificates with
        one of these names only."""
        if have.directory != self.directory:
            return None
        account = self.account if to_manager else None
        if account is not None and account.made <= have.made:
            account = None
        pems = tuple(
            pem
            for names, (life, pem) in self._certificates.items()
            if not self._is_over(life) and life.begins > have.certificates.get(file_of(names), 0.0)
            if to_manager or wanted is None or not wanted.isdisjoint(names)
        )
        # Of managers that differ, the account decides; those without one believe what they are told.
        news = account is not None or bool(pems)
        news = news or (not have.made and bool(self.thumbprint) and self.thumbprint != have.thumbprint)
        return CertificateUpdate(self.directory, self.thumbprint, account, pems) if news else None

    def wake(self) -> None:
        """Who waits for news looks again: what is wanted has changed."""
        changed, self._changed = self._changed, set()
        for event in changed:
            event.set()

    def changed(self) -> asyncio.Event:
        """Set with the next change; give it back with `forget`."""
        event = asyncio.Event()
        self._changed.add(event)
        return event

    def forget(self, event: asyncio.Event) -> None:
        self._changed.discard(event)

    # --- what comes ---

    def load(self) -> None:
        try:
            self._load()
        except FileNotFoundError:
            return  # nothing yet
        except OSError as error:
            self._failed(error)

    def _load(self) -> None:
        for file in sorted(self.folder.iterdir())[: CERTIFICATES_MAX + 2]:
            if file.suffix == SUFFIX and file.stat().st_size <= FILE_MAX:
                try:
                    names, life = read(file.read_text("ascii"))
                except ValueError as error:
                    logger.warning("%s is not used: %s", file, error)
                    continue
                self._certificates[names] = life, file.read_text("ascii")
        self._drop_what_is_over()
        self.thumbprint = (self.folder / THUMBPRINT).read_text("ascii").strip()
        try:
            self.account = decode_account((self.folder / ACCOUNT).read_bytes())
        except FileNotFoundError:
            self.account = None  # as on a worker
        except DiscoveryError as error:
            logger.warning("%s is not used: %s", self.folder / ACCOUNT, error)

    async def set_account(self, account: AcmeAccount, thumbprint: str) -> None:
        """One just made."""
        self._take_account(account, thumbprint)
        await self._save()

    def drop_account(self) -> None:
        """This node is no manager any more: the account is none of its business. Managers tell it of the
        account when it is one again."""
        if self.account is None:
            return
        self.account = None
        self._unsaved.pop(ACCOUNT, None)
        try:
            (self.folder / ACCOUNT).unlink(missing_ok=True)
        except OSError as error:
            self._failed(error)

    async def put(self, pem: str) -> None:
        """A certificate just issued. Raises ValueError for what is none."""
        names, life = read(pem)
        self._drop_what_is_over()
        self._take(names, life, pem)
        await self._save()

    async def take(self, told: CertificateUpdate) -> None:
        """What a manager has. What is not better than ours, or is nothing, is passed over."""
        if told.directory != self.directory:
            return
        theirs, ours = told.account, self.account
        if theirs is not None and (ours is None or theirs.made > ours.made):
            self._take_account(theirs, told.thumbprint)
        elif ours is None and told.thumbprint and told.thumbprint != self.thumbprint:
            self.thumbprint = told.thumbprint
            self._unsaved[THUMBPRINT] = told.thumbprint.encode()
        for pem in told.certificates:
            try:
                names, life = read(pem)
                before = self._certificates.get(names)
                if not self._is_over(life) and (before is None or life.begins > before[0].begins):
                    self._take(names, life, pem)
            except ValueError as error:
                logger.warning("a certificate that a manager told of is not used: %s", error)
        if self._unsaved:
            await self._save()

    def _take_account(self, account: AcmeAccount, thumbprint: str) -> None:
        self.account, self.thumbprint = account, thumbprint
        self._unsaved[ACCOUNT] = encode_account(account)
        self._unsaved[THUMBPRINT] = thumbprint.encode()

    def _take(self, names: Names, life: Life, pem: str) -> None:
        if names not in self._certificates and len(self._certificates) >= CERTIFICATES_MAX:
            raise ValueError(f"more than {CERTIFICATES_MAX} certificates")
        self._certificates[names] = life, pem
        self._unsaved[file_of(names)] = pem.encode("ascii")

    def _is_over(self, life: Life) -> bool:
        return life.ends + EXPIRED_SECONDS < self._clock()

    def _drop_what_is_over(self) -> None:
        """Few at a time, and each but a file's removal."""
        for names in [names for names, (life, _) in self._certificates.items() if self._is_over(life)]:
            del self._certificates[names]
            try:
                (self.folder / file_of(names)).unlink(missing_ok=True)
            except OSError as error:
                self._failed(error)

    async def _save(self) -> None:
        """To disk first: that is where the TLS side takes certificates from."""
        unsaved, self._unsaved = self._unsaved, {}
        await asyncio.to_thread(self._write, unsaved)
        self.wake()
        self.on_change()

    def _write(self, files: Mapping[str, bytes]) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, data in files.items():
                replace_file(self.folder / name, data)
            self.fault = ""
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.fault = f"cannot be used: {error.strerror}"
        logger.error("%s: %s", self.folder, error)


def file_of(names: Names) -> str:
    """Says the first name; of several, what tells them from others with the same first."""
    if len(names) == 1 and len(names[0]) <= SHOWN_MAX:
        return names[0] + SUFFIX
    digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:16]
    return f"{names[0][:SHOWN_MAX]}-{digest}{SUFFIX}"


def read(pem: str) -> tuple[Names, Life]:
    """Of a key and its certificate, chain behind. Raises ValueError for what is none."""
    try:
        return _read(pem)
    except _UNREADABLE as error:
        raise ValueError(f"the certificate cannot be read: {error}") from error


# What the library raises for a certificate that is one by its form only.
_UNREADABLE = (
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    TypeError,  # a key with a password
    OverflowError,  # a time beyond what there is
)


def _read(pem: str) -> tuple[Names, Life]:
    data = pem.encode()
    key = load_pem_private_key(data, None)
    leaf = x509.load_pem_x509_certificates(data)[0]
    if key.public_key() != leaf.public_key():
        raise ValueError("the certificate is not of its key")
    try:
        named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("the certificate has no names") from error
    names = sorted(name.lower() for name in named.get_values_for_type(x509.DNSName))
    if not names or not all(map(_NAME.fullmatch, names)):
        raise ValueError("the certificate has no names that can be used")
    life = Life(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
    return tuple(names), life

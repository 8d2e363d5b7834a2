"""What is asked of the authority: an account, and certificates by HTTP-01 (RFC 8555, section 8.3).

The protocol is certbot's library. It blocks, so each of its requests is made on a thread of our own; between
them we wait as the authority says. What it raises becomes a `CertificateError` with the authority's words.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import requests
from acme import challenges, client, crypto_util, messages
from acme import errors as acme_errors
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.errors import Error as JoseError
from josepy.json_util import encode_b64jose
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from josepy.util import ComparableECKey

from mesh.acme.messages import AcmeAccount
from mesh.acme.schedule import Names
from mesh.errors import AccountGone, CertificateError
from mesh.parsing import parse_json

T = TypeVar("T")

REQUEST_SECONDS = 10  # for the authority to accept a connection, and between two pieces of an answer
POLL_SECONDS = 1.0  # between two looks at whether it has made up its mind, at least
PROVE_SECONDS = 90.0  # for it to look whether a name is ours; Let's Encrypt looks from several places
ISSUE_SECONDS = 90.0  # and to make the certificate
NONCES_MAX = 4  # pairs of them that are tried for a request
ONE_LOOK = timedelta(seconds=2)  # that the library polls for at once: a thread cannot be cancelled
WORDS_MAX = 500  # characters of its words that are passed on


@dataclass(frozen=True, slots=True)
class Proof:
    """Whoever asks for this token at this name gets this text."""

    name: str
    token: str
    text: str


Prepare = Callable[[Sequence[Proof]], Awaitable[None]]


class Authority:
    """`ca`: PEM file by which the authority itself is known; "": as public ones are. Close it at the end."""

    def __init__(self, directory: str, email: str = "", ca: str = "") -> None:
        self._url = directory
        self._email = email
        self._ca = ca
        self._thread = ThreadPoolExecutor(1, "mesh-acme")

    def close(self) -> None:
        """What is under way on the thread ends by itself, after a request's time at most."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def register(self, now: float) -> tuple[AcmeAccount, str]:
        """A new account, its terms agreed to; and its thumbprint. Raises CertificateError."""
        key = JWKEC(key=ComparableECKey(ec.generate_private_key(ec.SECP256R1())))
        uri = await self._do(partial(self._register, key))
        return AcmeAccount(uri, json.dumps(key.to_json()), now), _thumbprint(key)

    async def order(self, account: AcmeAccount, names: Names, prepare: Prepare) -> str:
        """A new certificate: PEM of its key and its chain. `prepare` is awaited before the authority is told
        to look. Raises CertificateError; AccountGone if the account is not known."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        asking = await self._do(partial(self._client, account))
        order = await self._do(partial(asking.new_order, crypto_util.make_csr(pem, list(names))))
        await self._prove(asking, order, prepare)
        chain = await self._issued(asking, order)
        return pem.decode("ascii") + chain.strip() + "\n"

    # --- steps ---

    async def _prove(self, asking: client.ClientV2, order: messages.OrderResource, prepare: Prepare) -> None:
        open_ = [one for one in order.authorizations if one.body.status != messages.STATUS_VALID]
        offered = [_by_http(one) for one in open_]
        proofs = [
            Proof(
                one.body.identifier.value,
                challenge.chall.encode("token"),
                challenge.chall.key_authorization(asking.net.key),
            )
            for one, challenge in zip(open_, offered, strict=True)
        ]
        await prepare(proofs)
        for challenge in offered:
            await self._do(partial(asking.answer_challenge, challenge, challenge.response(asking.net.key)))
        try:
            async with asyncio.timeout(PROVE_SECONDS):
                for one in open_:
                    await self._proven(asking, one)
        except TimeoutError as error:
            raise CertificateError(f"has not looked at our names in {PROVE_SECONDS:.0f} s") from error

    async def _proven(self, asking: client.ClientV2, one: messages.AuthorizationResource) -> None:
        while True:
            found, response = await self._do(partial(asking.poll, one))
            status = found.body.status
            if status == messages.STATUS_VALID:
                return
            if status not in (messages.STATUS_PENDING, messages.STATUS_PROCESSING):
                raise CertificateError(_not_proven(found))
            with _translated():
                wanted = (asking.retry_after(response, 1) - datetime.now()).total_seconds()
            await asyncio.sleep(min(PROVE_SECONDS, max(POLL_SECONDS, wanted)))

    async def _issued(self, asking: client.ClientV2, order: messages.OrderResource) -> str:
        try:
            order = await self._do(partial(asking.begin_finalization, order))
        except CertificateError as error:
            # Whoever is not ready yet is asked again by the library, below.
            said = error.__cause__
            if not isinstance(said, messages.Error) or said.code != "orderNotReady":
                raise
        try:
            async with asyncio.timeout(ISSUE_SECONDS):
                while True:
                    done = await self._do(partial(self._look, asking, order))
                    if done is not None:
                        return done
        except TimeoutError as error:
            raise CertificateError(f"has not issued it in {ISSUE_SECONDS:.0f} s") from error

    # --- on the thread ---

    async def _do(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            with _translated():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)

    def _register(self, key: JWKEC) -> str:
        asking = self._connected(key)
        if asking.external_account_required():
            raise CertificateError(
                "wants an account made elsewhere (external account binding): not supported"
            )
        about = messages.NewRegistration.from_data(email=self._email or None, terms_of_service_agreed=True)
        return str(asking.new_account(about).uri)

    def _client(self, account: AcmeAccount) -> client.ClientV2:
        key = JWKEC.from_json(_account_key(account.key))
        assert isinstance(key, JWKEC)
        known = messages.RegistrationResource(uri=account.uri, body=messages.Registration())
        return self._connected(key, known)

    def _connected(self, key: JWKEC, known: messages.RegistrationResource | None = None) -> client.ClientV2:
        net = _AcmeTransport(
            key, account=known, alg=ES256, user_agent="docker-swarm-mesh", timeout=REQUEST_SECONDS
        )
        if self._ca:
            # The library means a switch, and hands it to `requests`, which takes a file as well.
            net.verify_ssl = self._ca  # type: ignore[assignment]
        return client.ClientV2(client.ClientV2.get_directory(self._url, net), net)

    @staticmethod
    def _look(asking: client.ClientV2, order: messages.OrderResource) -> str | None:
        """The chain; None: it is not issued yet."""
        try:
            return str(asking.poll_finalization(order, datetime.now() + ONE_LOOK).fullchain_pem)
        except acme_errors.TimeoutError:
            return None


class _AcmeTransport(client.ClientNetwork):
    """Asks again when the nonce is not taken (RFC 8555, section 6.5). The library does so once; an authority
    with several machines behind one name may need more."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(NONCES_MAX - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


def _thumbprint(key: JWK) -> str:
    """RFC 7638, in base64url: what follows the token in a proof."""
    return str(encode_b64jose(key.thumbprint()))


def _by_http(one: messages.AuthorizationResource) -> messages.ChallengeBody:
    for challenge in one.body.challenges:
        if isinstance(challenge.chall, challenges.HTTP01):
            return challenge
    raise CertificateError(f"does not take a proof by HTTP for {one.body.identifier.value}")


def _not_proven(one: messages.AuthorizationResource) -> str:
    said = [_words(challenge.error) for challenge in one.body.challenges if challenge.error is not None]
    return f"{one.body.identifier.value} is not proven: {'; '.join(said) or one.body.status.name}"


def _words(error: messages.Error) -> str:
    parts = [error.detail or error.title or error.typ]
    parts += [_words(one) for one in error.subproblems or ()]
    return "; ".join(parts)[:WORDS_MAX]


# No JSON, nested too deep, of other types, without a place that a directory has to have.
NOT_ACME = (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except messages.Error as error:
        kind = AccountGone if error.code == "accountDoesNotExist" else CertificateError
        raise kind(_words(error), general=error.code == "serverInternal") from error
    except requests.exceptions.SSLError as error:
        raise CertificateError(f"cannot be believed: {_short(_innermost(error))}", general=True) from error
    except requests.RequestException as error:
        raise CertificateError(f"does not answer: {_short(_innermost(error))}", general=True) from error
    except (acme_errors.Error, JoseError) as error:
        raise CertificateError(_short(error)) from error
    except OSError as error:  # the file `ca`
        raise CertificateError(f"cannot be asked: {_short(error)}", general=True) from error
    except NOT_ACME as error:
        raise CertificateError(f"answers what is not ACME: {_short(error)}", general=True) from error


def _account_key(text: str) -> dict[str, object]:
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("the account's key is no JWK")
    return found


def _innermost(error: BaseException) -> BaseException:
    """The reason itself, out of what was wrapped around it."""
    while True:
        first = error.args[0] if error.args else None
        inner = next((one for one in (getattr(error, "reason", None), error.__cause__, first) if one), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:WORDS_MAX]

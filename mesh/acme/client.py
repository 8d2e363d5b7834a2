"""What is asked of the authority: an account, and certificates by HTTP-01 (RFC 8555, section 8.3).

The protocol is certbot's library. It blocks, so it works on a thread of our own; its requests are carried out
by `bounded_http`, and between them we wait as the authority says. The authority is a stranger: what the
library raises about its answers, and what we find wrong with them, becomes a `CertificateError` with the
authority's words.
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

from mesh.acme.bounded_http import WORDS_MAX, BoundedHttp, on_one_line
from mesh.acme.messages import AcmeAccount
from mesh.acme.schedule import Names
from mesh.errors import AccountGone, CertificateError
from mesh.parsing import parse_json

T = TypeVar("T")

POLL_SECONDS = 1.0  # between two looks at whether it has made up its mind, at least
PROVE_SECONDS = 90.0  # for it to look whether a name is ours; Let's Encrypt looks from several places
ISSUE_SECONDS = 90.0  # and to make the certificate
NONCES_MAX = 4  # pairs of them that are tried for a request
ONE_LOOK = timedelta(seconds=2)  # that the library polls for at once: a thread cannot be cancelled
SUBPROBLEMS_MAX = 10  # of an error that are passed on
TOKEN_MAX = 256  # characters, as `sidecar.issued` answers for; RFC 8555 asks for 22 at least
URI_MAX = 2048  # characters of an account's address
CHAIN_MAX = 128 * 1024  # characters of a certificate with its chain; some 6 KB


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
        self._loop: asyncio.AbstractEventLoop | None = None

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
        await self._prove(asking, order, names, prepare)
        chain = await self._issued(asking, order)
        return pem.decode("ascii") + chain.strip() + "\n"

    # --- steps ---

    async def _prove(
        self, asking: client.ClientV2, order: messages.OrderResource, names: Names, prepare: Prepare
    ) -> None:
        with _translated():
            open_ = [one for one in order.authorizations if one.body.status != messages.STATUS_VALID]
            offered = [_by_http(one) for one in open_]
            proofs = [
                _proof(one, challenge, asking, names) for one, challenge in zip(open_, offered, strict=True)
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
            with _translated():
                status = found.body.status
                if status == messages.STATUS_VALID:
                    return
                if status not in (messages.STATUS_PENDING, messages.STATUS_PROCESSING):
                    raise CertificateError(_not_proven(found))
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

        self._loop = asyncio.get_running_loop()  # for the requests of the thread
        return await self._loop.run_in_executor(self._thread, translated)

    def _register(self, key: JWKEC) -> str:
        asking = self._connected(key)
        if asking.external_account_required():
            raise CertificateError(
                "wants an account made elsewhere (external account binding): not supported"
            )
        about = messages.NewRegistration.from_data(email=self._email or None, terms_of_service_agreed=True)
        uri = asking.new_account(about).uri
        if not isinstance(uri, str) or not 0 < len(uri) <= URI_MAX or not uri.isascii():
            raise CertificateError("makes an account without saying where it is")
        return uri

    def _client(self, account: AcmeAccount) -> client.ClientV2:
        key = JWKEC.from_json(_account_key(account.key))
        assert isinstance(key, JWKEC)
        known = messages.RegistrationResource(uri=account.uri, body=messages.Registration())
        return self._connected(key, known)

    def _connected(self, key: JWKEC, known: messages.RegistrationResource | None = None) -> client.ClientV2:
        assert self._loop is not None
        net = _AcmeTransport(key, account=known, alg=ES256, user_agent="docker-swarm-mesh")
        http = BoundedHttp(self._url, self._loop)
        net.session.mount("http://", http)
        net.session.mount("https://", http)
        if self._ca:
            # The library means a switch, and hands it to `requests`, which takes a file as well.
            net.verify_ssl = self._ca  # type: ignore[assignment]
        return client.ClientV2(client.ClientV2.get_directory(self._url, net), net)

    @staticmethod
    def _look(asking: client.ClientV2, order: messages.OrderResource) -> str | None:
        """The chain; None: it is not issued yet."""
        try:
            chain = str(asking.poll_finalization(order, datetime.now() + ONE_LOOK).fullchain_pem)
        except acme_errors.TimeoutError:
            return None
        if len(chain) > CHAIN_MAX:
            raise CertificateError(f"has issued a chain of more than {CHAIN_MAX} characters")
        return chain


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
    raise CertificateError(f"does not take a proof by HTTP for {on_one_line(one.body.identifier.value)}")


def _proof(
    one: messages.AuthorizationResource,
    challenge: messages.ChallengeBody,
    asking: client.ClientV2,
    names: Names,
) -> Proof:
    """Only for what was ordered: a proof for another name would be none of this order's business."""
    name, token = one.body.identifier.value, challenge.chall.encode("token")
    if name not in names:
        raise CertificateError(f"wants a proof for {on_one_line(name)}, which was not ordered")
    if len(token) > TOKEN_MAX:
        raise CertificateError(f"wants a proof with a token of {len(token)} characters")
    return Proof(name, token, challenge.chall.key_authorization(asking.net.key))


def _not_proven(one: messages.AuthorizationResource) -> str:
    said = [_words(challenge.error) for challenge in one.body.challenges if challenge.error is not None]
    return (
        f"{on_one_line(one.body.identifier.value)} is not proven: {'; '.join(said) or one.body.status.name}"
    )


def _words(error: messages.Error) -> str:
    """With those of the errors that it is made of, which have none themselves (RFC 8555, section 6.7.1)."""
    parts = (error, *(error.subproblems or ())[:SUBPROBLEMS_MAX])
    return "; ".join(on_one_line(one.detail or one.title or one.typ) for one in parts)[:WORDS_MAX]


# No JSON, nested too deep, of other types, without a place that a directory has to have.
NOT_ACME = (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        translated = _as_certificate_error(error)
        if translated is None:
            raise
        raise translated from error


def _as_certificate_error(error: Exception) -> CertificateError | None:
    """None: it is not the authority's doing."""
    if isinstance(error, CertificateError):
        return None
    if isinstance(error, messages.Error):
        kind = AccountGone if error.code == "accountDoesNotExist" else CertificateError
        return kind(_words(error), general=error.code == "serverInternal")
    if isinstance(error, acme_errors.IssuanceError):
        return CertificateError(f"does not issue it: {_words(error.error)}")
    if isinstance(error, acme_errors.ClientError | acme_errors.MissingNonce):
        return CertificateError(_of_response(error))
    if isinstance(error, acme_errors.Error | JoseError):
        return CertificateError(_short(error))
    if isinstance(error, requests.RequestException):
        return CertificateError(f"names what cannot be asked: {_short(error)}", general=True)
    if isinstance(error, OSError):  # the file `ca`
        return CertificateError(f"cannot be asked: {_short(error)}", general=True)
    if isinstance(error, NOT_ACME):
        return CertificateError(f"answers what is not ACME: {_short(error)}", general=True)
    return None


def _of_response(error: Exception) -> str:
    """What the library says of an answer is often the answer's object alone."""
    found = error.args[0] if error.args else None
    response = found[0] if isinstance(found, tuple) and found else getattr(error, "response", found)
    if not isinstance(response, requests.Response):
        return _short(error)
    if isinstance(error, acme_errors.MissingNonce):
        return f"answers with status {response.status_code} and no nonce"
    return f"answers with status {response.status_code} what is not ACME"


def _account_key(text: str) -> dict[str, object]:
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("the account's key is no JWK")
    return found


def _short(error: BaseException) -> str:
    try:
        text = str(error)
    except NOT_ACME:  # the library's errors are made of what the authority said
        text = ""
    return on_one_line(text or type(error).__name__)

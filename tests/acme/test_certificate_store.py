"""What a node keeps of an authority, and what it takes from others."""

from pathlib import Path

import pytest

from mesh.acme.certificate_store import AcmeStore, file_of, read
from mesh.acme.messages import (
    AcmeAccount,
    CertificateUpdate,
    Inventory,
    decode_account,
    decode_have,
    decode_told,
    encode_account,
    encode_have,
    encode_told,
)
from mesh.errors import DiscoveryError
from tests.support.certificates import NOW, pair

URL = "https://ca.example/directory"
ACCOUNT = AcmeAccount("https://ca.example/acct/1", "{}", 10.0)


def pem(*names: str, days: int = 10) -> str:
    certificate, key = pair(*names, days=days)
    return (key + certificate).decode()


def kept(folder: Path, directory: str = URL) -> AcmeStore:
    one = AcmeStore(str(folder), directory)
    one.load()
    return one


async def test_the_next_process_has_it(tmp_path: Path) -> None:
    one = kept(tmp_path)
    assert one.have() == {}
    await one.set_account(ACCOUNT, "print")
    text = pem("b.example", "a.example")
    await one.put(text)
    again = kept(tmp_path)
    assert (again.account, again.thumbprint) == (ACCOUNT, "print")
    assert again.have() == one.have()
    assert list(again.have()) == [("a.example", "b.example")]
    assert kept(tmp_path, "https://other.example/dir").have() == {}, "of another authority"


async def test_expired_ones_go(tmp_path: Path) -> None:
    now = NOW.timestamp()
    one = AcmeStore(str(tmp_path), URL, lambda: now)
    await one.set_account(ACCOUNT, "print")
    await one.put(pem("a.example", days=1))
    old = one.newer(Inventory(URL), to_manager=False)
    assert old is not None
    now += 9 * 86400
    assert one.newer(Inventory(URL, "print", 10.0), to_manager=True) is None, "nobody is told of it any more"
    later = AcmeStore(str(tmp_path), URL, lambda: now)
    later.load()
    assert later.have() == {}
    assert not (later.folder / "a.example.pem").exists()
    await later.take(old)
    assert later.have() == {}, "nor is it taken"
    await one.put(pem("b.example", days=100))
    assert list(one.have()) == [("b.example",)]


async def test_rubbish_in_the_folder_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = kept(tmp_path)
    await one.set_account(ACCOUNT, "print")
    (one.folder / "x.pem").write_text("nothing")
    (one.folder / "account.json").write_text("{}")
    again = kept(tmp_path)
    assert (again.have(), again.account) == ({}, None)
    assert "x.pem is not used" in caplog.text
    assert "account.json is not used: not a word about certificates: uri" in caplog.text


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("a file")
    one = kept(tmp_path)
    await one.put(pem("a.example"))
    assert "cannot be used" in one.fault
    assert list(one.have()) == [("a.example",)], "it goes on without"


async def test_what_is_newer_is_told_and_taken(tmp_path: Path) -> None:
    manager, other, worker = kept(tmp_path / "m"), kept(tmp_path / "o"), kept(tmp_path / "w")
    await manager.set_account(ACCOUNT, "print")
    await manager.put(pem("a.example"))
    told = manager.newer(worker.have_told(), to_manager=False)
    assert told is not None
    assert (told.account, told.thumbprint, len(told.certificates)) == (None, "print", 1)
    await worker.take(told)
    assert worker.have() == manager.have()
    assert manager.newer(worker.have_told(), to_manager=False) is None
    told = manager.newer(other.have_told(), to_manager=True)
    assert told is not None
    await other.take(told)
    assert other.account == ACCOUNT
    assert manager.newer(other.have_told(), to_manager=True) is None
    assert other.newer(manager.have_told(), to_manager=True) is None
    # An account that was made later is everybody's.
    await other.set_account(AcmeAccount("https://ca.example/acct/2", "{}", 20.0), "another")
    told = other.newer(manager.have_told(), to_manager=True)
    assert told is not None
    await manager.take(told)
    assert manager.thumbprint == "another"
    assert manager.newer(other.have_told(), to_manager=True) is None
    told = manager.newer(worker.have_told(), to_manager=False)
    assert told is not None
    await worker.take(told)
    assert worker.thumbprint == "another"


async def test_the_one_that_begins_later_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kept(tmp_path)
    old, new = pem("a.example"), pem("a.example")
    names, life = read(new)
    # Both begin at the same time: what we have stays.
    await one.take(CertificateUpdate(URL, certificates=(old,)))
    await one.take(CertificateUpdate(URL, certificates=(new,)))
    assert one.newer(Inventory(URL), to_manager=False) == CertificateUpdate(URL, "", None, (old,))
    have = Inventory(URL, certificates={file_of(names): life.begins - 1})
    assert one.newer(have, to_manager=False) is not None
    have = Inventory(URL, certificates={file_of(names): life.begins})
    assert one.newer(have, to_manager=False) is None


async def test_what_a_manager_cannot_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = kept(tmp_path)
    begin = "-----BEGIN CERTIFICATE-----"
    mixed = begin.join((pem("a.example").split(begin)[0], pem("a.example").split(begin)[1]))
    await one.take(
        CertificateUpdate(URL, certificates=("nothing", mixed, pem("../up.example"), pem("good.example")))
    )
    assert list(one.have()) == [("good.example",)]
    assert "not of its key" in caplog.text
    await one.take(CertificateUpdate("https://other.example/dir", "print", ACCOUNT, (pem("b.example"),)))
    assert list(one.have()) == [("good.example",)]
    assert one.account is None


def test_names_of_files() -> None:
    assert file_of(("a.example",)) == "a.example.pem"
    assert file_of(("a.example", "b.example")) != file_of(("a.example", "c.example"))
    long = ".".join(["x" * 60] * 4)
    assert len(file_of((long,))) < 255
    assert file_of((long,)) != file_of((long + "x",))


def test_messages() -> None:
    told, have = CertificateUpdate(URL, "p", ACCOUNT, ("x",)), Inventory(URL, "p", 1.5, {"a.pem": 2.0})
    assert decode_told(encode_told(told)) == told
    assert decode_have(encode_have(have)) == have
    assert decode_account(encode_account(ACCOUNT)) == ACCOUNT
    for data in (b"", b"[]", b'{"directory": 1}', b'{"directory": "x", "certificates": "x"}'):
        with pytest.raises(DiscoveryError, match="not a word about certificates"):
            decode_told(data)
    assert decode_have(b'{"directory": "x", "later": 1}') == Inventory("x"), "of a newer sidecar"


async def test_who_is_no_manager_any_more_has_no_account(tmp_path: Path) -> None:
    one = AcmeStore(str(tmp_path), URL)
    await one.set_account(AcmeAccount("https://ca.example/acct/1", "{}", 10.0), "print")
    one.drop_account()
    one.drop_account()
    again = AcmeStore(str(tmp_path), URL)
    again.load()
    assert (one.account, again.account) == (None, None)
    assert (one.thumbprint, again.thumbprint) == ("print", "print"), "it can still prove names"
    assert one.have_told().made == 0.0, "it asks for it when it is one again"


@pytest.mark.parametrize("name", ["a/b", "../x", "a\0b", "a b", ".a", "a\nb"])
def test_a_name_that_can_be_no_files_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no names that can be used"):
        read(pem(name))

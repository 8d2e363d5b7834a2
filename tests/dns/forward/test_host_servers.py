"""The host's servers, as its resolv.conf changes."""

from pathlib import Path

import pytest

from mesh.dns.config import FORWARD_DEADLINE, DnsConfig
from mesh.dns.forward import host_servers
from mesh.dns.forward.host_servers import HostServers
from mesh.dns.forward.route import DnsServer, Manner


class File:
    """A resolv.conf, and whoever follows it; time goes on by enough between two looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: dict[str, str] = {}
        self.servers = HostServers(DnsConfig(resolv_conf=str(path)), self.faults)
        self.now = 100.0

    def write(self, *addresses: str) -> None:
        self.path.write_text("".join(f"nameserver {address}\n" for address in addresses))

    def get(self) -> list[str]:
        self.now += 1.0
        return [server.address for server in self.servers.get(self.now)]


@pytest.fixture
def file(tmp_path: Path) -> File:
    made = File(tmp_path / "resolv.conf")
    made.write("10.0.0.1")
    assert made.get() == ["10.0.0.1"]
    return made


def test_it_is_looked_at_once_a_second(file: File) -> None:
    file.write("10.0.0.22")
    assert file.servers.get(file.now + 0.9) == (DnsServer("10.0.0.1"),)
    assert file.servers.get(file.now + 1.0) == (DnsServer("10.0.0.22"),)


def test_written_over_in_place(file: File) -> None:
    file.write("10.0.0.2", "10.0.0.3")
    assert file.get() == ["10.0.0.2", "10.0.0.3"]


def test_replaced_by_renaming(file: File) -> None:
    other = file.path.with_name("new")
    other.write_text("nameserver 10.0.0.9\n")  # as long as the old one
    other.rename(file.path)
    assert file.get() == ["10.0.0.9"]


def test_a_link_that_leads_elsewhere(file: File) -> None:
    """As systemd-resolved's: /etc/resolv.conf → /run/systemd/resolve/stub-resolv.conf."""
    stub = file.path.with_name("stub-resolv.conf")
    stub.write_text("nameserver 127.0.0.53\n")
    file.path.unlink()
    file.path.symlink_to(stub)
    assert file.get() == ["127.0.0.53"]


def test_what_was_known_stays_in_force_while_it_is_gone(file: File) -> None:
    file.path.unlink()
    assert file.get() == ["10.0.0.1"]
    assert "cannot be read" in file.faults[str(file.path)]
    file.write("10.0.0.2")
    assert file.get() == ["10.0.0.2"]
    assert file.faults == {}


def test_what_was_known_stays_in_force_while_it_is_empty(file: File) -> None:
    file.write()
    assert file.get() == ["10.0.0.1"]
    assert "names no server" in file.faults[str(file.path)]
    file.write("10.0.0.2")
    assert file.get() == ["10.0.0.2"]
    assert file.faults == {}


def test_without_a_file_there_is_nobody_to_ask(tmp_path: Path) -> None:
    servers = HostServers(DnsConfig(resolv_conf=str(tmp_path / "nothing")), {})
    assert servers.get(1.0) == ()


def test_configured_servers_leave_it_unread() -> None:
    faults: dict[str, str] = {}
    servers = HostServers(DnsConfig(upstreams=("10.0.0.7:54",), resolv_conf="/nowhere", alike=True), faults)
    assert servers.get(0) == (DnsServer("10.0.0.7", 54),)
    assert servers.manner.alike
    assert faults == {}


def test_options_say_how_servers_are_asked(file: File) -> None:
    assert file.servers.manner == Manner()
    file.path.write_text("nameserver 10.0.0.1\noptions rotate timeout:2 attempts:5 use-vc\n")
    file.get()
    assert file.servers.manner == Manner(alike=True, rounds=5, try_timeout=2, tcp=True)
    file.path.write_text("nameserver 10.0.0.1\noptions timeout:30\n")
    file.get()
    assert file.servers.manner.try_timeout == FORWARD_DEADLINE


def test_a_link_that_leads_out_of_the_container_leaves_dockers_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.write_text("nameserver 10.0.0.9\n")
    monkeypatch.setattr(host_servers, "DOCKERS_COPY", str(copy))
    link = tmp_path / "resolv.conf"
    link.symlink_to("/nowhere/stub-resolv.conf")
    file = File(link)
    assert file.get() == ["10.0.0.9"]
    assert not file.faults
    copy.write_text("nameserver 10.0.0.10\n")
    assert file.get() == ["10.0.0.10"]


def test_a_folder_that_holds_the_file(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.7\n")
    folder = File(tmp_path)
    assert folder.get() == ["10.0.0.7"]
    (tmp_path / "new").write_text("nameserver 10.0.0.8\n")
    (tmp_path / "new").rename(tmp_path / "resolv.conf")
    assert folder.get() == ["10.0.0.8"]
    assert not folder.faults


def test_a_file_that_was_replaced_where_it_is_not_seen_is_told(tmp_path: Path) -> None:
    """A mount of the file alone keeps the old one, which no folder has any more; so does a descriptor."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.7\n")
    with path.open() as held:
        mounted = File(Path(f"/proc/self/fd/{held.fileno()}"))
        assert mounted.get() == ["10.0.0.7"]
        assert not mounted.faults
        path.unlink()
        assert mounted.get() == ["10.0.0.7"]  # it is still the best that is known
        (fault,) = mounted.faults.values()
        assert "was replaced" in fault

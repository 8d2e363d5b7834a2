"""Loading rules in a process of its own: whatever the caller's descriptors, and whatever becomes of it."""

import array
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mesh.errors import KernelError, WireError
from mesh.kernel.netfilter import nft, nft_messages
from mesh.kernel.netfilter.nft import NftProcess
from mesh.kernel.netfilter.nft_messages import HEAD, MESSAGE_MAX, NftStatus, receive, send
from mesh.net.netns import in_new_namespace
from mesh.net.setns import open_own_namespace
from tests.net.lab import eventually, needs_root

FD_SETSIZE = 1024
TABLE = "add table ip t\nadd chain ip t c\n"
LIST = "list tables ip\n"


@pytest.fixture
def process() -> Iterator[NftProcess]:
    made = NftProcess()
    yield made
    made.close()


@pytest.fixture
def own() -> Iterator[int]:
    """Of the namespace that we are in."""
    descriptor = open_own_namespace()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def pid_of(process: NftProcess) -> int:
    assert process.pid is not None
    return process.pid


# --- the process --------------------------------------------------------------------------------------------


@pytest.mark.root
@needs_root
def test_rules_are_loaded_above_1024_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * FD_SETSIZE:
        pytest.skip("the hard limit of descriptors is below 2,048")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while (one := os.open("/dev/null", os.O_RDONLY)) < FD_SETSIZE + 64:
            held.callback(os.close, one)
        held.callback(os.close, one)
        assert "table ip t" in in_new_namespace(lambda: nft.run(TABLE) + nft.run(LIST))


@pytest.mark.root
@needs_root
def test_the_library_is_not_in_this_process() -> None:
    in_new_namespace(lambda: nft.run(TABLE))
    assert "libnftables" not in Path("/proc/self/maps").read_text()


@pytest.mark.root
@needs_root
def test_a_refusal_is_quoted_and_disturbs_nothing(process: NftProcess) -> None:
    def work() -> str:
        own = open_own_namespace()
        try:
            process.run(TABLE, own)
            with pytest.raises(KernelError, match="no_such_chain"):
                process.run("add rule ip t no_such_chain accept\n", own)
            return process.run(LIST, own)
        finally:
            os.close(own)

    assert in_new_namespace(work) == "table ip t\n"


@pytest.mark.root
@needs_root
def test_it_keeps_nothing_of_a_namespace(process: NftProcess, own: int) -> None:
    process.run(LIST, own)
    folder = Path(f"/proc/{process.pid}")
    before = len(list((folder / "fd").iterdir()))

    def work() -> None:
        inside = open_own_namespace()
        process.run(TABLE, inside)
        os.close(inside)

    for _ in range(20):
        in_new_namespace(work)
    home = os.readlink("/proc/self/ns/net")
    eventually(lambda: len(list((folder / "fd").iterdir())) <= before, "its sockets are closed")
    for thread in (folder / "task").iterdir():
        assert os.readlink(thread / "ns/net") == home


@pytest.mark.root
@needs_root
def test_one_that_has_died_is_replaced_by_the_next_call(process: NftProcess, own: int) -> None:
    process.run(LIST, own)
    first = pid_of(process)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # with all its threads, which hold the socket
    process.run(LIST, own)
    assert process.pid not in (None, first)
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_one_that_dies_in_a_call_is_that_calls_error_alone(
    process: NftProcess, own: int, number: signal.Signals
) -> None:
    process.run(LIST, own)
    failed = list[KernelError]()

    def call() -> None:
        try:
            process.run(LIST, own)
        except KernelError as error:
            failed.append(error)

    os.kill(pid_of(process), signal.SIGSTOP)
    caller = threading.Thread(target=call)
    caller.start()
    wchan = Path(f"/proc/self/task/{caller.native_id}/stat")
    eventually(lambda: wchan.read_text().rpartition(")")[2].split()[0] == "S", "the caller waits")
    os.kill(pid_of(process), number)
    os.kill(pid_of(process), signal.SIGCONT)
    caller.join()
    # It may have died before it had the request: then the request went to the next one, and was answered.
    assert all("was lost" in str(error) and str(-number) in str(error) for error in failed)
    process.run(LIST, own)


@pytest.mark.root
@needs_root
def test_one_that_hangs_is_given_up(process: NftProcess, own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(nft, "END_SECONDS", 0.1)
    process.start()
    os.kill(pid_of(process), signal.SIGSTOP)
    with pytest.raises(KernelError, match="timed out"):
        process.run(LIST, own)
    monkeypatch.undo()
    process.run(LIST, own)


@pytest.mark.root
@needs_root
def test_a_signal_for_the_whole_group_does_not_end_it(process: NftProcess, own: int) -> None:
    process.run(LIST, own)
    first = process.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of(process), number)
    process.run(LIST, own)
    assert process.pid == first


@pytest.mark.root
@needs_root
def test_calls_of_many_threads_get_their_own_answers(process: NftProcess) -> None:
    def work(name: str) -> str:
        own = open_own_namespace()
        try:
            process.run(f"add table ip {name}\n", own)
            return "".join({process.run(LIST, own) for _ in range(5)})
        finally:
            os.close(own)

    found = dict[str, str]()

    def caller(name: str) -> None:
        found[name] = in_new_namespace(lambda: work(name))

    callers = [threading.Thread(target=caller, args=(f"t{number}",)) for number in range(8)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert found == {f"t{number}": f"table ip t{number}\n" for number in range(8)}


def test_more_than_a_message_holds_is_refused_before_it_is_sent(
    process: NftProcess, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_messages, "MESSAGE_MAX", 100)
    with pytest.raises(KernelError, match="100 at most"):
        process.run("#" * 101, own)
    assert process.pid is None


# --- messages -----------------------------------------------------------------------------------------------


def test_a_message_and_its_descriptor_arrive(pair: tuple[socket.socket, socket.socket], own: int) -> None:
    ours, theirs = pair
    send(ours, NftStatus.REQUEST, b"list tables\n", own)
    status, body, came = receive(theirs)
    assert (status, body) == (NftStatus.REQUEST, b"list tables\n")
    assert came is not None
    assert os.fstat(came).st_ino == os.fstat(own).st_ino
    os.close(came)
    send(theirs, NftStatus.REFUSED, b"")
    assert receive(ours) == (NftStatus.REFUSED, b"", None)


def test_the_other_ends_end_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(HEAD.pack(NftStatus.DONE, 10) + b"half")
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    with pytest.raises(EOFError):
        receive(theirs)


@pytest.mark.parametrize(("status", "length"), [(0, MESSAGE_MAX + 1), (3, 0), (255, 2**32 - 1)])
def test_what_is_no_message_is_an_error(
    pair: tuple[socket.socket, socket.socket], status: int, length: int
) -> None:
    ours, theirs = pair
    ours.sendall(HEAD.pack(status, length))
    with pytest.raises(WireError):
        receive(theirs)


def test_descriptors_too_many_are_not_kept(pair: tuple[socket.socket, socket.socket], own: int) -> None:
    ours, theirs = pair
    before = len(os.listdir("/proc/self/fd"))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [own, own, own]))]
    ours.sendmsg([HEAD.pack(NftStatus.REQUEST, 0)], rights)
    with pytest.raises(WireError):
        receive(theirs)
    assert len(os.listdir("/proc/self/fd")) == before

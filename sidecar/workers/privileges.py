"""Giving up privileges, for good, before anything from outside is read. Imports nothing but what it needs.

    limits        memory of its own, no core file, first to be killed where memory runs out
    identity      no supplementary groups, another group and user
    capabilities  all five sets empty: permitted, effective, inheritable, ambient, bounding
    no way back   no_new_privs (no setuid program helps), not dumpable (nobody with the same uid may trace it)

Without root there is no identity to give up; the rest is done all the same. Whatever cannot be done raises:
a process that has kept a privilege must not go on. (capabilities(7), prctl(2), setrlimit(2))
"""

import ctypes
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 4, 23, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h: sets of 64 bits
CAPABILITIES_MAX = 64  # bits that a set has
KILLED_FIRST = "800"  # oom_score_adj, up to 1000: the sidecar itself answers DNS, so it goes last


@dataclass(frozen=True, slots=True)
class Restriction:
    """What a process keeps. `memory`: bytes of private writable memory (RLIMIT_DATA); 0: no limit."""

    uid: int
    gid: int
    memory: int

    def as_words(self) -> list[str]:
        """For a command line."""
        return [str(self.uid), str(self.gid), str(self.memory)]

    @classmethod
    def from_words(cls, words: list[str]) -> "Restriction":
        uid, gid, memory = map(int, words)
        return cls(uid, gid, memory)


def drop(restriction: Restriction) -> None:
    """Raises OSError; then the process has to end."""
    _limit(restriction.memory)
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(KILLED_FIRST)  # a preference, no protection: there may be no /proc to write to
        _empty_bounding_set(libc)
        os.setgroups([])
        os.setresgid(restriction.gid, restriction.gid, restriction.gid)
        os.setresuid(restriction.uid, restriction.uid, restriction.uid)
    _prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _empty_own_sets(libc)
    _prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, PR_SET_DUMPABLE, 0)
    _prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of the user clears it, so it comes last


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    for number in range(CAPABILITIES_MAX):
        if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:  # -1: the kernel does not have so many
            _prctl(libc, PR_CAPBSET_DROP, number)


def _empty_own_sets(libc: ctypes.CDLL) -> None:
    head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the lower 32 bits, then the upper
    if libc.capset(ctypes.byref(head), ctypes.byref(sets)) != 0:
        _fail("capset")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        _fail(f"prctl {option}")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")

"""What the kernel can do, by doing it: here everything can, and what cannot be done is told."""

import os

import pytest

from mesh.errors import KernelError
from mesh.kernel import feature_probe
from mesh.net.netns import in_new_namespace
from tests.net.lab import needs_root

pytestmark = [pytest.mark.root, needs_root]


def test_every_feature_works_here() -> None:
    found = feature_probe.tried()
    assert set(found.values()) == {""}, found
    assert found.keys() >= {
        *feature_probe.RULES,
        *feature_probe.OURS,
        "conntrack over netlink",
        "policy routing",
    }


def test_a_feature_that_is_missing_is_told_in_nfts_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_probe, "RULES", {"wings": "add rule ip nowhere to fly\n"})
    found = feature_probe.tried()
    assert found["wings"].startswith("nftables refused")
    assert found["conntrack over netlink"] == ""


def test_the_namespace_is_a_new_one_and_its_errors_come_out() -> None:
    here = os.stat("/proc/thread-self/ns/net").st_ino
    assert in_new_namespace(lambda: os.stat("/proc/thread-self/ns/net").st_ino) != here
    assert os.stat("/proc/thread-self/ns/net").st_ino == here

    def fails() -> None:
        raise KernelError("as said")

    with pytest.raises(KernelError, match="as said"):
        in_new_namespace(fails)

"""Policy routes by mark, in a real kernel."""

from collections.abc import Iterator

import pytest

from mesh.errors import NamespaceGone
from mesh.net import routes
from tests.net.lab import Lab, inside, laboratory, needs_root

pytestmark = [pytest.mark.root, needs_root]

MARK, OTHER = 0x6D650002, 0x6D650003


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def test_a_mark_is_led_once_moved_and_forgotten(lab: Lab) -> None:
    box = lab.namespace("box")
    lab.plug(box, "eth0", "10.0.0.9/24", lab.switch("sw"))
    assert not box.call(routes.has_default)
    for gateway in ("10.0.0.7", "10.0.0.2", "10.0.0.2"):
        box.call(lambda gateway=gateway: routes.lead(MARK, gateway, "eth0", 2000))  # type: ignore[misc]
    box.call(lambda: routes.lead(OTHER, "10.0.0.3", "eth0", 2000))
    assert inside(box, "ip", "rule", "show", "fwmark", hex(MARK)).rstrip() == (
        f"2000:\tfrom all fwmark {MARK:#x} lookup {MARK}"
    )
    assert "via 10.0.0.2 dev eth0" in inside(box, "ip", "route", "get", "8.8.8.8", "mark", hex(MARK))
    assert "via 10.0.0.3 dev eth0" in inside(box, "ip", "route", "get", "8.8.8.8", "mark", hex(OTHER))
    assert box.call(lambda: sorted(routes.led(0x6D650000, 0xFFFF0000))) == [(MARK, 2000), (OTHER, 2000)]
    assert not box.call(routes.has_default)  # of the main table
    inside(box, "ip", "route", "add", "default", "via", "10.0.0.1")
    assert box.call(routes.has_default)
    box.call(lambda: routes.forget(MARK, 2000))
    box.call(lambda: routes.forget(MARK, 2000))
    assert box.call(lambda: routes.forget_all(0x6D650000, 0xFFFF0000)) == 1
    assert "fwmark" not in inside(box, "ip", "rule")
    assert inside(box, "ip", "route", "show", "table", "all", "proto", "109") == ""


def test_what_is_not_there_is_gone(lab: Lab) -> None:
    box = lab.namespace("box")
    with pytest.raises(NamespaceGone):
        box.call(lambda: routes.lead(MARK, "10.0.0.2", "eth0", 2000))
    with pytest.raises(NamespaceGone):
        box.call(lambda: routes.hardware_address("eth0"))


def test_the_hardware_address(lab: Lab) -> None:
    box = lab.namespace("box")
    lab.plug(box, "eth0", "10.0.0.9/24", lab.switch("sw"))
    inside(box, "ip", "link", "set", "eth0", "address", "02:42:0a:00:00:09")
    assert box.call(lambda: routes.hardware_address("eth0")) == "02:42:0a:00:00:09"

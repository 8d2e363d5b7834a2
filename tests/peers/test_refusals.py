"""What peers were refused, for metrics, the log and people."""

from mesh.peers import refusals as module
from mesh.peers.refusals import Refusals


def test_counted_by_reason_and_named_for_a_while() -> None:
    one = Refusals()
    assert [one.add("slow", now, "n1") for now in range(1, 12)] == [True, *[False] * 8, True, False]
    one.add("slow", 12)
    one.add("foreign", 500, "n2")
    assert one.counts == {"slow": 12, "foreign": 1}
    assert [(x.peer, x.reason, x.count) for x in one.recent(600)] == [
        ("n1", "slow", 11),
        ("n2", "foreign", 1),
    ]
    assert [x.peer for x in one.recent(700)] == ["n2"]
    assert one.counts["slow"] == 12


def test_names_are_bounded() -> None:
    one = Refusals()
    for n in range(module.RECENT_MAX + 10):
        one.add("slow", 1.0, f"n{n}")
    assert len(list(one.recent(2.0))) == module.RECENT_MAX

"""What a node says is ending: when it begins, is taken back, and is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.discovery.stopping_tasks import ENDED_SECONDS, SURVIVED_SECONDS, StoppingTasks
from mesh.peers.report.codec import ENDINGS_MAX


def nothing_listed(_task: str, _service: str) -> bool:
    return False


def all_listed(_task: str, _service: str) -> bool:
    return True


class TestEndings:
    def test_told_once(self) -> None:
        endings = StoppingTasks()
        assert endings.begin("t1", "web", 0.0)
        assert not endings.begin("t1", "web", 0.1)
        assert not endings.end("t1", "web", 0.2)
        assert endings.report == {"t1": "web"}

    def test_what_survives_is_taken_back(self) -> None:
        endings = StoppingTasks()
        endings.begin("t1", "web", 0.0)
        assert not endings.sift(SURVIVED_SECONDS - 0.1, all_listed)
        assert endings.sift(SURVIVED_SECONDS, all_listed)
        assert endings.report == {}
        assert endings.begin("t1", "web", 20.0)

    def test_the_last_signal_counts(self) -> None:
        endings = StoppingTasks()
        endings.begin("t1", "web", 0.0)
        endings.begin("t1", "web", 10.0)
        assert not endings.sift(SURVIVED_SECONDS + 1, all_listed)

    def test_what_has_ended_does_not_come_back(self) -> None:
        endings = StoppingTasks()
        endings.begin("t1", "web", 0.0)
        endings.end("t1", "web", 1.0)
        endings.begin("t1", "web", 2.0)  # a signal told of late
        assert not endings.sift(1000.0, all_listed)
        assert endings.report == {"t1": "web"}

    def test_it_is_forgotten_when_the_cluster_has_and_others_had_time(self) -> None:
        endings = StoppingTasks()
        endings.end("t1", "web", 0.0)
        assert not endings.sift(ENDED_SECONDS - 0.1, nothing_listed)
        assert endings.sift(ENDED_SECONDS, nothing_listed)
        assert endings.report == {}

    def test_the_oldest_are_forgotten_first(self) -> None:
        endings = StoppingTasks()
        for number in range(ENDINGS_MAX):
            endings.end(f"t{number}", "web", 0.0)
        endings.end("one more", "web", 0.0)
        assert len(endings.report) == ENDINGS_MAX
        assert "t0" not in endings.report
        assert "one more" in endings.report


steps = st.tuples(
    st.sampled_from(("begin", "end", "sift")), st.sampled_from(("t1", "t2")), st.floats(0.0, 20.0)
)


@given(st.lists(steps, max_size=20))
def test_an_unsure_one_is_told_for_a_bounded_time_and_a_sure_one_while_it_is_listed(
    history: list[tuple[str, str, float]],
) -> None:
    endings, now = StoppingTasks(), 0.0
    signalled, ended = dict[str, float](), set[str]()
    for what, task, pause in history:
        now += pause
        if what == "begin":
            endings.begin(task, "web", now)
            signalled[task] = now
        elif what == "end":
            endings.end(task, "web", now)
            ended.add(task)
        else:
            endings.sift(now, all_listed)
            fresh = {one for one, at in signalled.items() if now - at < SURVIVED_SECONDS}
            assert endings.report.keys() == ended | fresh

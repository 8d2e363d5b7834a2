"""Questions of ours that come back."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.forward.loop_detection import InFlightSpellings
from mesh.dns.forward.query_builder import spelled
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from tests.dns.forward.asking import wanted

HERE = DnsServer("10.0.0.1")
ROUTE = UpstreamRoute("host", (HERE,))
LONG, SHORT = wanted("database.example").question, wanted("web").question


@given(st.integers(0, 2**180))
def test_only_a_spelling_that_nobody_would_choose_is_known_again(case: int) -> None:
    spellings = InFlightSpellings()
    question = spelled(LONG, case)
    with spellings.out(question, case, ROUTE, HERE):
        chosen = question[:-4] in (LONG[:-4], LONG[:-4].upper())
        assert spellings.sent_to(question) == (None if chosen else (ROUTE, HERE))
        assert spellings.sent_to(LONG) is None
    assert spellings.sent_to(question) is None


def test_a_few_letters_prove_nothing() -> None:
    spellings, question = InFlightSpellings(), spelled(SHORT, -1 % 2**64)
    with spellings.out(question, 1, ROUTE, HERE):
        assert spellings.sent_to(question) is None

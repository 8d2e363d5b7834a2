"""Who gives way among handshakes: pure."""

from mesh.http.tls.handshake_places import HandshakePlaces


def places(*begun: tuple[str, str], heard: str = "") -> HandshakePlaces[str]:
    made: HandshakePlaces[str] = HandshakePlaces(6, 3)
    for address, handshake in begun:
        made.add(address, handshake, active=handshake in heard)
    return made


def test_an_address_with_its_share_evicts_its_own_oldest_silent_handshake() -> None:
    made = places(("a", "1"), ("a", "2"), ("a", "3"))
    assert made.admit("a") == (True, "1")
    made.mark_active("a", "1")
    assert made.admit("a") == (True, "2")
    assert made.admit("b") == (True, None)
    assert made.admit("a", shared=True) == (True, None)


def test_active_handshakes_are_not_evicted_for_one_of_the_same_address() -> None:
    made = places(("a", "1"), ("a", "2"), ("a", "3"), heard="123")
    assert made.admit("a") == (False, None)
    made.remove("2")
    assert made.admit("a") == (True, None)


def test_a_full_listener_evicts_a_silent_handshake_of_the_address_with_the_most() -> None:
    made = places(("b", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("c", "5"), ("c", "6"))
    assert made.admit("d") == (True, "2")
    assert made.admit("c") == (True, "1")  # both would have three


def test_a_full_listener_with_equal_addresses_evicts_the_oldest_silent_handshake() -> None:
    made = places(*((address, address) for address in "abcdef"), heard="a")
    assert made.admit("g") == (True, "b")
    for one in "bcdef":
        made.mark_active(one, one)
    assert made.admit("g") == (True, "a")
    assert sorted(made) == list("abcdef")

"""The table of paths: what is refused, what every server reads alike, how else servers may read the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec import path_check
from mesh.http.codec.path_check import EncodedCharacters, check_path, check_rewritten, is_plain, normal_path
from mesh.http.config.matchers import escaped, routing_path
from mesh.http.faults import HttpFault, RequestRefused


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a..b/..c/d..", "/a..b/..c/d.."),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/~a/%7Eb", "/~a/~b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%e2%80%a2/%f0%9f%98%80", "/%E2%80%A2/%F0%9F%98%80"),
        ("/a%20b", "/a%20b"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/x/%2E./admin", "/admin"),
        ("/x/.%2e/admin", "/admin"),
        ("//admin", "/admin"),
        ("/x//./admin", "/x/admin"),
        ("/@a/b:c,d", "/@a/b:c,d"),
        ("*", "*"),
    ],
)
def test_an_unambiguous_path_has_one_normal_form(path: str, normal: str) -> None:
    assert check_path(path) == (normal, ())
    assert check_path(path) == (path, ()) or not is_plain(path)


HIDDEN_DOTS = [
    "/x/..%2fadmin",
    "/x/..%2Fadmin",
    "/x/%2e%2e%2fadmin",
    "/x/%2E%2e%2Fadmin",
    "/x%2f..%2fadmin",
    "/x%2f..",
    "/x/.%2fadmin",
    "/..%2f..%2fadmin",
    "/x/..%5cadmin",
    "/x/..%5Cadmin",
    "/x%5c..%5cadmin",
    "/x/..%5c..%2fadmin",
    "/x/..;/admin",
    "/x/..;x=1/admin",
    "/x/..;x=1;y=2/admin",
    "/x/..;",
    "/x/.;/admin",
    "/x/%2e%2e;/admin",
    "/x/%2e.;a/admin",
    "/x/..%3b/admin",
    "/x/..%3Bx=1/admin",
    "/x/..%00/admin",
    "/x/..%23/admin",
    "/x/..%3f/admin",
    "/x/..%20/admin",
    "/x/%20../admin",
    "/x/..%a0/admin",
    "/x/%a0../admin",
    "/x/..%c2%a0/../admin%2f..",
    "/x/%252e%252e/admin",
    "/x/%252e./admin",
    "/x/..%252fadmin",
    "/x/%25252e%25252e/admin",
    "/x/..%253b/admin",
    "/x/%2525252525252e/admin",
]
MALFORMED = [
    "/x\\..\\admin",
    "/x\\admin",
    "/x/..\\admin",
    "\\x",
    "/x#/../admin",
    "/x/\t/admin",
    "/x/..\t/admin",
    "/x y",
    "/x\0",
    "/x\x7f",
    "/x/%00/admin",
    "/x%00.png",
    "/x%0aadmin",
    "/x%0d%0aadmin",
    "/x/%09../admin",
    "/x%1f",
    "/x%7f",
    "/x%",
    "/x%2",
    "/x%zz",
    "/x/%u002e%u002e/admin",
    "/x/..%u2215admin",
    "/x/%c0%ae%c0%ae/admin",
    "/x/%C0%AE%C0%AE%C0%AFadmin",
    "/x/..%c0%afadmin",
    "/x/..%c1%9cadmin",
    "/x/%e0%80%ae%e0%80%ae/admin",
    "/x/..%e0%80%afadmin",
    "/x/%f0%80%80%ae/admin",
    "/x/%c0./admin",
]


@pytest.mark.parametrize("path", HIDDEN_DOTS + MALFORMED)
def test_a_path_without_honest_use_is_refused(path: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_path(path)
    assert caught.value.fault is HttpFault.BAD_PATH
    assert caught.value.fault.status == 400


EVERYTHING = EncodedCharacters(True, True, True, True, True, True, True)


@pytest.mark.parametrize("path", HIDDEN_DOTS)
def test_hidden_dot_segments_are_refused_with_every_option(path: str) -> None:
    with pytest.raises(RequestRefused):
        check_path(path, EVERYTHING)


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        ("/x%2fadmin", {"/x/admin"}),
        ("/%2fadmin", {"/admin"}),
        ("/x%5cadmin", {"/x\\admin", "/x/admin"}),
        ("/x;a=1/admin", {"/x/admin"}),
        ("/;/admin", {"/admin"}),
        ("/admin;x", {"/admin"}),
        ("/admin%3bx", {"/admin", "/admin;x"}),
        ("/admin%3fx", {"/admin", "/admin?x"}),
        ("/admin%23x", {"/admin", "/admin#x"}),
        ("/a%25b", {"/a%b"}),
        ("/a%252fb", {"/a%2Fb", "/a/b"}),
        ("/a%253ab", {"/a%3Ab"}),
    ],
)
def test_the_other_readings_of_a_path_are_found(path: str, readings: set[str]) -> None:
    assert readings <= set(check_path(path)[1])
    assert check_path(path)[1]


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("allowEncodedSlash", "/x%2fy"),
        ("allowEncodedBackSlash", "/x%5cy"),
        ("allowEncodedNullCharacter", "/x%00y"),
        ("allowEncodedSemicolon", "/x%3by"),
        ("allowEncodedPercent", "/x%25y"),
        ("allowEncodedQuestionMark", "/x%3fy"),
        ("allowEncodedHash", "/x%23y"),
    ],
)
def test_each_encoded_character_has_an_option(option: str, path: str) -> None:
    assert check_path(path, EncodedCharacters(**{option: True})) == (normal_path(path), ())
    assert check_path(path.upper().replace("X", "x"), EncodedCharacters(**{option: True}))[1] == ()
    with pytest.raises(RequestRefused):
        check_path(path, EncodedCharacters(**{option: False}))
    assert check_path(path, EncodedCharacters(**{option: None}))[1] != ()


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/x", True),
        ("/", True),
        ("//x", True),
        ("/x%2fy;z=1", True),
        ("/x?up=/../y", True),
        ("/../admin", False),
        ("/..", False),
        ("/./x", False),
        ("/x/%2e%2e/y", False),
        ("/..;/x", False),
        ("/..%2fx", False),
        ("/x\\y", False),
        ("/x%2", False),
        ("/x#y", False),
    ],
)
def test_a_rewritten_path_is_checked_again(path: str, good: bool) -> None:
    assert (check_rewritten(path) == "") is good


@pytest.mark.parametrize(
    ("path", "routed"),
    [("/a%3Adelete", "/a:delete"), ("/%40x%2Fy%3B%25", "/@x%2Fy%3B%25"), ("/a%20b", "/a%20b")],
)
def test_rules_see_one_spelling_of_equal_paths(path: str, routed: str) -> None:
    assert routing_path(path) == routed
    assert escaped(path) == routed


_PIECES = [
    "/",
    "..",
    ".",
    "%2e",
    "%2f",
    "%5c",
    ";",
    "%3b",
    "%25",
    "admin",
    "x",
    "%c0",
    "%af",
    "\\",
    "%00",
    "%3f",
]


@given(st.lists(st.sampled_from([*_PIECES, "%20", "%a0", "%e0", "%c3%a9"]), max_size=9))
def test_the_fast_check_agrees_with_the_full_one(pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    if path_check._AMBIGUOUS.search(path) is None:
        assert path_check._why_refused(path) == ""
        assert path_check._readings(normal_path(path), EncodedCharacters()) == ()


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_no_reading_of_an_accepted_path_has_dot_segments(path: str) -> None:
    try:
        normal, readings = check_path("/" + path)
    except RequestRefused:
        return
    assert (normal, readings) == ("/" + path, ()) or not is_plain("/" + path)
    for one in (normal, *readings):
        assert not {".", ".."} & {part.partition(";")[0] for part in one.replace("\\", "/").split("/")}

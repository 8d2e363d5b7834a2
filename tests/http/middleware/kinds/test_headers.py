"""`headers`: which fields of requests and responses are set and removed."""

from mesh.http.codec.proxy_headers import with_fields
from mesh.http.middleware.kinds.headers import Headers
from tests.support.middleware_runs import plan_of


def test_fields_are_set_and_an_empty_value_removes_one() -> None:
    plan = plan_of(Headers((("X-A", "1"), ("Cookie", "")), (("Server", ""), ("X-B", "2"))))
    assert plan.request_fields == [("X-A", "1"), ("Cookie", None)]
    assert plan.response_fields == [("Server", None), ("X-B", "2")]


def test_of_several_that_set_a_field_the_last_counts() -> None:
    first = Headers((("X-A", "1"), ("X-B", "1")), (("Server", "x"), ("Via", "")))
    plan = plan_of(first, Headers((("x-a", "2"), ("X-B", "")), (("server", ""), ("Via", "y"))))
    sent = with_fields(b"X-A: 0\r\nX-B: 0\r\nC: d\r\n", plan.request_fields)
    assert sent == b"C: d\r\nx-a: 2\r\n"
    assert with_fields(b"Server: z\r\nVia: z\r\n", plan.response_fields) == b"Via: y\r\n"

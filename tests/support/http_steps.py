"""A route's steps all at once: what the site does with a thread and requests of its own, here in place."""

from collections.abc import Sequence

from mesh.http.codec.h1_head import Fields, RequestFields, ResponseHead
from mesh.http.middleware.chain import NeedsAuthRequest, NeedsPasswordCheck, go_on
from mesh.http.middleware.forward_auth import judge, question
from mesh.http.request_plan import RequestContext, RequestPlan, Step

SENT = b"Host: a.example\r\nX-User: root\r\n"  # of a request, as an endpoint gets it


def treat(made: Sequence[Step], asked: RequestContext, verdict: ResponseHead | None = None) -> RequestPlan:
    """`verdict`: what is said whenever somebody has to be asked."""
    treatment = RequestPlan(asked.request.path, asked.request.query)
    while True:
        try:
            go_on(made, asked, treatment)
        except NeedsPasswordCheck as unverified:
            unverified.verify()
        except NeedsAuthRequest as unanswered:
            lines = question(unanswered.one, asked, treatment, SENT)
            assert RequestFields(Fields(lines)).length == 0
            judge(unanswered.one, asked, treatment, SENT, verdict, b"")
            treatment.taken += 1
        else:
            return treatment

"""A route's steps all at once: what the site does with a thread for slow passwords, here in place."""

from collections.abc import Sequence

from mesh.http.steps import Asked, Step, Treatment, Unverified, go_on


def treat(made: Sequence[Step], asked: Asked) -> Treatment:
    treatment = Treatment(asked.request.path, asked.request.query)
    while True:
        try:
            go_on(made, asked, treatment)
        except Unverified as unverified:
            unverified.verify()
        else:
            return treatment

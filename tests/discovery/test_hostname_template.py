"""Placeholders of `--hostname`, as Docker's engines expand them."""

import pytest

from mesh.discovery.hostname_template import expand

FIELDS = {".Service.Name": "web", ".Task.Slot": "3", ".Node.Hostname": "swarm01"}
LABELS = {"zone": "north"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("literal.example", "literal.example"),
        ("{{.Service.Name}}-{{.Task.Slot}}.example", "web-3.example"),
        ("{{ .Node.Hostname }}", "swarm01"),
        ("{{- .Task.Slot -}}", "3"),
        ('{{index .Service.Labels "zone"}}.{{.Service.Name}}', "north.web"),
        ('x{{index .Service.Labels "none"}}', "x"),
        ("{{.Node.Platform.OS}}-{{.Task.Slot}}", ""),
        ("{{.Service.Name | printf}}", ""),
    ],
)
def test_what_is_understood_is_expanded_and_nothing_is_guessed(text: str, expanded: str) -> None:
    assert expand(text, FIELDS, LABELS) == expanded

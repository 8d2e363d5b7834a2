"""The labels that the documents promise are the labels that are read, and no others."""

import re
from pathlib import Path

from mesh.catalog.model import Port, Service
from mesh.labels.dns import problems
from mesh.labels.ports import plan

ROOT = Path(__file__).parents[2]
VALUES = {
    "mode": "proxy",
    "policy": "random",
    "source_ip": "masquerade",
    "proxy_protocol": "v2",
    "health": "tcp",
    "locality": "node",
    "trusted": "10.0.0.0/8",
}


def documented(file: str) -> set[str]:
    return set(re.findall(r"`mesh\.port\.<published>\.(\w+)`", (ROOT / file).read_text(encoding="utf-8")))


def test_every_documented_dns_label_is_read_and_any_other_is_a_problem_that_names_them() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    found = set(re.findall(r"`(mesh\.dns\.[\w.<>]+)`", text))
    labels = {label.replace("<name>", "http"): "30" for label in found}
    assert len(labels) == 2
    assert problems(Service("s", "web", labels=labels)) == ()
    (problem,) = problems(Service("s", "web", labels={"mesh.dns.colour": "blue"}))
    assert all(label.partition("<")[0] in problem.message for label in found)


def test_every_documented_port_label_is_read() -> None:
    options = documented("docs/configuration.md")
    assert options >= documented("README.md")
    labels = {f"mesh.port.80.{option}": VALUES.get(option, "30s") for option in options}
    assert plan(Service("s", "web", ports=(Port(80, 8080),), labels=labels)).problems == ()


def test_an_undocumented_port_label_is_a_problem_that_names_all_documented_ones() -> None:
    labels = {"mesh.port.80.colour": "blue"}
    (problem,) = plan(Service("s", "web", ports=(Port(80, 8080),), labels=labels)).problems
    assert all(option in problem.message for option in documented("docs/configuration.md"))

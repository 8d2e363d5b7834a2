"""`mesh check`: what kind a file is, and all of its faults at once."""

from pathlib import Path

import pytest

from mesh.errors import ConfigError
from sidecar.cli import main
from sidecar.cli.check import check


def test_check_prints_every_problem_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "catalog.yml"
    file.write_text("networks: {n: {subnet: x}}\nservices: {a: {networks: {m: {}}}}")
    assert main.main(["check", str(file)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: networks.n.subnet: 'x' is not a network in CIDR form",
        f"{file}: services.a.networks.m: unknown network 'm'",
    ]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        (
            "networks: {}\nservices: {}",
            "a good catalogue: networks: 0, services: 0, tasks: 0, nodes: 0, askers: 0",
        ),
        ("dns: {ttl: 3}", "a good configuration"),
        ("", "a good configuration"),
        (
            "discovery: {kind: file, path: beside.yml}",
            "a good configuration, with a good catalogue: net",
        ),
    ],
)
def test_check_sees_what_a_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, summary: str
) -> None:
    (tmp_path / "beside.yml").write_text("networks: {n: {}}\nservices: {}")
    file = tmp_path / "file.yml"
    file.write_text(text)
    assert main.main(["check", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: {summary}")


def test_check_names_faults_of_the_configuration_and_of_its_catalogue_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "catalog.yml").write_text("{networks: {a: {subnet: nonsense}}, services: {}}")
    file = tmp_path / "mesh.yml"
    file.write_text(
        "{capture: sometimes, discovery: {kind: file, path: catalog.yml},"
        " http: {entrypoints: ['web=0.0.0.0:80'], encoded_characters: {wbe: {allowEncodedSlash: true}}}}"
    )
    assert main.main(["check", str(file)]) == 2
    said = capsys.readouterr().out
    for key in ("capture", "http.encoded_characters.wbe", "networks.a.subnet"):
        assert key in said


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param(
            "{networks: {a: {subnet: nonsense}}, services: {x: {mode: vipp, networks: {zz: {}}}}}",
            {"networks.a.subnet", "services.x.mode", "services.x.networks.zz"},
            id="a value of a wrong type, a wrong value, an unknown name",
        ),
        pytest.param(
            "{networks: {a: {subnet: [1]}}, services: {x: {networks: {a: {}, zz: {}}}}}",
            {"networks.a.subnet[0]", "services.x.networks.zz"},
            id="a faulty network is still a known one",
        ),
        pytest.param(
            "{networks: {}, services: {x: {mode: vipp}, y: {mode: dnsrrr}}}",
            {"services.x.mode", "services.y.mode"},
            id="the same fault in two services",
        ),
        pytest.param(
            "{networks: {}, services: {x: {nonsense: 1, networks: {zz: {}}}}}",
            {"services.x.nonsense", "services.x.networks.zz"},
            id="an unknown key, an unknown network",
        ),
        pytest.param(
            "{dns: {ttl: soon}, capture: sometimes, discovery: {kind: file}}",
            {"dns.ttl", "capture", "discovery.kind"},
            id="a configuration: type, value and sense",
        ),
    ],
)
def test_no_fault_hides_another_one(tmp_path: Path, text: str, keys: set[str]) -> None:
    file = tmp_path / "file.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        check(str(file))
    assert {problem.key for problem in raised.value.problems} == keys

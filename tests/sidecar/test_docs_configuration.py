"""docs/configuration.md is true: its files load, its defaults and its variables are the code's."""

import re
from pathlib import Path

from mesh.catalog import codec
from sidecar import config

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def block(title: str) -> str:
    found = re.search(rf"```yaml\n# {re.escape(title)}\n(.*?)```", TEXT, re.DOTALL)
    assert found, title
    return found[1]


def test_the_documented_file_says_the_defaults() -> None:
    assert config.build(block("mesh.yml"), "mesh.yml", {}, {}, "x") == config.build("", "", {}, {}, "swarm00")


def test_the_documented_catalogue_is_good() -> None:
    assert codec.parse_text(block("catalog.yml"), "catalog.yml").services


def test_every_variable_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"`(MESH_[A-Z0-9_]+)` \|", TEXT))
    assert documented == set(config.VARIABLES) | {"MESH_CATALOG"}

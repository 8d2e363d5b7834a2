"""Every command that a message or a page tells people to type can be typed: it exists, with these options."""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cli.main import parser

ROOT = Path(__file__).parent.parent
COMMAND = re.compile(r"`(mesh|make|tests/lab/lab|tests/lab/vm) ([^`\n]+)`")
SOURCES = ("mesh", "sidecar", "tests", "benchmarks", "docs", "deploy")
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md")
RUN_AS = "run `lab"  # `lab` alone is no program of anybody's path


def texts() -> Iterator[tuple[Path, str]]:
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".md", ".yml") and file != Path(__file__):
                yield file, file.read_text()
    for page in PAGES:
        yield ROOT / page, (ROOT / page).read_text()


def named() -> list[tuple[str, str]]:
    """(program, arguments), each once."""
    return sorted({found.group(1, 2) for _, text in texts() for found in COMMAND.finditer(text)})


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: sub
        for action in of._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, sub in action.choices.items()
    }


def options(of: argparse.ArgumentParser) -> set[str]:
    return {flag for action in of._actions for flag in action.option_strings}


def fault_of_mesh(words: list[str]) -> str:
    at = parser()
    while words and words[0] in subcommands(at):
        at = subcommands(at)[words.pop(0)]
    if words and words[0] == "…":
        return ""
    if words and subcommands(at) and not words[0].startswith("-") and not words[0].isupper():
        return f"no command {words[0]!r}"
    unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - options(at)
    return f"no option {min(unknown)}" if unknown else ""


def fault_of_make(words: list[str]) -> str:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return "" if words[0] in targets or words[0].isupper() else f"no target {words[0]!r}"


def fault_of_script(program: str, words: list[str]) -> str:
    asked = [
        subprocess.run([ROOT / program, *ask], capture_output=True, text=True) for ask in ([], ["--help"])
    ]
    usage = "".join(done.stdout + done.stderr for done in asked)
    exists = words[0] == "…" or re.search(rf"\b{re.escape(words[0])}\b", usage)
    return "" if exists else f"no command {words[0]!r}"


@pytest.mark.parametrize(("program", "arguments"), named())
def test_a_command_that_is_named_can_be_typed(program: str, arguments: str) -> None:
    words = arguments.split("|")[0].replace("[", "").replace("]", "").split()
    if program == "mesh":
        assert not fault_of_mesh(words)
    elif program == "make":
        assert not fault_of_make(words)
    else:
        assert not fault_of_script(program, words)


def test_errors_of_the_lab_name_it_by_its_path() -> None:
    short = [str(file) for file, text in texts() if RUN_AS in text or "run `vm" in text]
    assert short == []

"""Every link of the documentation leads somewhere, and every file that it names is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
    ROOT / "tests/lab/README.md",
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:mesh|sidecar|tests|docs|deploy|benchmarks)/[\w./-]*\w\.(?:py|md|yml|lock|sh))`")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
GENERATED = ("benchmarks/out/",)


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as they stand in a link: small letters, no punctuation, hyphens."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))
    }


def fault_of(link: str, page: Path) -> str:
    """What is wrong with a relative link; nothing is checked of one that leads out of the project."""
    if re.match(r"[a-z]+:", link):
        return ""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: there is no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: {target.name} has no such heading"
    return ""


def names(page: Path) -> Iterator[str]:
    return (name for name in NAMED.findall(prose(page)) if not name.startswith(GENERATED))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_exists(page: Path) -> None:
    assert [fault for link in LINK.findall(prose(page)) if (fault := fault_of(link, page))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    assert [name for name in names(page) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("link", ["missing.md", "README.md#no-such-heading", "#no-such-heading"])
def test_a_link_that_leads_nowhere_is_a_fault(link: str) -> None:
    assert fault_of(link, ROOT / "README.md")


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == {page for page in pages if f"({page})" in index}

"""The file source: what it publishes, when it looks again, and that a broken file changes nothing."""

import asyncio
from pathlib import Path

import pytest

from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.discovery import file_source as file_module
from mesh.discovery.file_source import FileSource
from mesh.errors import ConfigError

ONE = "networks: {n: {subnet: 10.0.0.0/24}}\nservices: {web: {networks: {n: {vip: 10.0.0.2}}}}\n"
TWO = ONE + "askers: [{name: me, source: 127.0.0.0/8, networks: [n]}]\n"
BROKEN = "networks: {}\nservices: {web: {mode: vipp}}\n"


class Scene:
    """A catalogue file, the store it fills, and every change that was published."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "catalog.yml"
        self.store = Store(on_error=lambda error: pytest.fail(str(error)))
        self.changes: list[Change] = []
        self.store.subscribe(lambda old, new, change: self.changes.append(change))
        self.source = FileSource(
            self.path, self.store.publish, lambda: self.store.current, clock=lambda: 1000.0
        )

    def rename_over(self, text: str) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)

    @property
    def current(self) -> Snapshot:
        return self.store.current


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    scene.path.write_text(ONE)
    return scene


def test_load_publishes_the_file(scene: Scene) -> None:
    assert scene.source.load() is scene.current
    assert scene.current.services["web"].vip("n") == "10.0.0.2"
    status = scene.source.status()
    assert (status.kind, status.connected, status.last_success) == ("file", True, 1000.0)


def test_a_first_load_that_is_broken_raises_and_publishes_nothing(scene: Scene) -> None:
    scene.path.write_text(BROKEN)
    with pytest.raises(ConfigError, match=r"services\.web\.mode: must be vip or dnsrr"):
        scene.source.load()
    assert scene.changes == []


async def test_an_unchanged_file_is_not_read_again(scene: Scene) -> None:
    scene.source.load()
    assert not await scene.source.refresh()
    assert len(scene.changes) == 1


@pytest.mark.parametrize("how", ["in place", "by rename"])
async def test_only_the_difference_is_published(scene: Scene, how: str) -> None:
    scene.source.load()
    scene.path.write_text(TWO) if how == "in place" else scene.rename_over(TWO)
    assert await scene.source.refresh()
    assert scene.changes[1:] == [Change(askers=scene.current.askers)]


@pytest.mark.parametrize("broken", [BROKEN, "a: [", None, b"\xff"], ids=["sense", "syntax", "gone", "bytes"])
async def test_a_broken_file_keeps_the_last_good_catalogue(scene: Scene, broken: str | bytes | None) -> None:
    before = scene.source.load()
    if broken is None:
        scene.path.unlink()
    else:
        scene.path.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    assert not await scene.source.refresh()
    assert scene.current is before
    assert not scene.source.status().connected
    assert str(scene.path) in scene.source.status().last_error

    scene.rename_over(TWO)
    assert await scene.source.refresh()
    assert scene.source.status().connected
    assert scene.source.status().problems == ()


async def test_a_file_written_on_while_it_is_read_is_left_for_the_next_look(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.source.load()
    scene.path.write_text(TWO)
    read = scene.source._read

    def read_and_write_on() -> str:
        text = read()
        scene.path.write_text(TWO + "# more\n")
        return text

    monkeypatch.setattr(scene.source, "_read", read_and_write_on)
    assert not await scene.source.refresh()
    monkeypatch.setattr(scene.source, "_read", read)
    assert await scene.source.refresh()


async def test_a_file_that_outgrows_its_limit_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="is larger than 10 bytes"):
        scene.source.load()


async def test_run_follows_the_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "CHECK_EVERY", 0)
    scene.source.load()
    published = asyncio.Event()
    scene.store.subscribe(lambda old, new, change: published.set())
    following = asyncio.create_task(scene.source.run())
    scene.rename_over(TWO)
    await asyncio.wait_for(published.wait(), 5)
    following.cancel()
    assert scene.current.askers

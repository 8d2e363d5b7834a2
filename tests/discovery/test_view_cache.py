"""The last view on disk: what comes back, what is not taken, and how it is written."""

import json
import logging
import stat
from pathlib import Path

import pytest

from mesh.catalog.cluster_view import ClusterView
from mesh.discovery import view_cache as saved_module
from mesh.discovery.swarm_json import cluster
from mesh.discovery.view_cache import SavedView
from tests.support.docker_fixtures import NETWORKS, NODES, WEB, WEB_TASKS
from tests.support.waiting import running, until

VIEW = cluster(NODES, NETWORKS, [WEB], WEB_TASKS)


def test_nothing_saved(tmp_path: Path) -> None:
    assert SavedView(str(tmp_path), lambda: VIEW).load() is None


@pytest.mark.parametrize("content", ["", "{}", "rubbish", '{"changed": {}}'])
def test_what_is_no_view_is_not_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    assert SavedView(str(tmp_path), lambda: VIEW).load() is None


async def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = SavedView(str(tmp_path / "state"), lambda: VIEW)
    file = tmp_path / "state" / "cluster.json"
    async with running(saved.run()):
        saved.changed()
        await until(file.exists, "it is written")
    assert SavedView(str(tmp_path / "state"), lambda: VIEW).load() == VIEW
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["cluster.json"]


async def test_the_last_change_is_saved_at_the_end(tmp_path: Path) -> None:
    view = VIEW
    saved = SavedView(str(tmp_path), lambda: view)
    async with running(saved.run()):
        saved.changed()
        await until((tmp_path / "cluster.json").exists, "the first is written")
        view = ClusterView({}, {}, {})
        saved.changed()
    assert saved.load() == view


async def test_an_older_view_never_replaces_a_newer_one(tmp_path: Path) -> None:
    """A thread may still be about to write when the end comes."""
    saved = SavedView(str(tmp_path), lambda: VIEW)
    late = saved._take()
    saved._write(*saved._take())
    saved._write(late[0], ClusterView({}, {}, {}))
    assert saved.load() == VIEW


async def test_changes_in_between_cost_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_module, "EVERY_SECONDS", 0.05)
    written: list[bytes] = []
    monkeypatch.setattr(saved_module, "replace_file", lambda _path, data: written.append(data))
    saved = SavedView(str(tmp_path), lambda: VIEW)
    async with running(saved.run()):
        for _ in range(100):
            saved.changed()
        await until(lambda: written, "it is written")
    assert len(written) == 1
    assert set(json.loads(written[0])["view"]) == {"nodes", "networks", "services"}


async def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(saved_module, "EVERY_SECONDS", 0.0)
    (tmp_path / "file").touch()
    tries = 0

    def view() -> ClusterView:
        nonlocal tries
        tries += 1
        return VIEW

    saved = SavedView(str(tmp_path / "file" / "state"), view)
    with caplog.at_level(logging.WARNING):
        async with running(saved.run()):
            for wanted in (1, 2, 3):
                saved.changed()
                await until(lambda wanted=wanted: tries >= wanted, "another try")  # type: ignore[misc]
    assert [one.getMessage() for one in caplog.records] == [
        f"{tmp_path}/file/state/cluster.json cannot be written: Not a directory"
    ]

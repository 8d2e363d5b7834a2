"""What the image is made smaller with: what goes, what stays, and that every build of the image has it."""

import fnmatch
import importlib.util
import re
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/slim.py"
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def loaded(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slim = loaded(SCRIPT, "slim")


def trimmed(folder: Path) -> set[str]:
    subprocess.run([sys.executable, SCRIPT, "trim", folder], check=True)
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_tests_stubs_and_sources_of_c_go(tmp_path: Path) -> None:
    for name in (
        "a/tests/test_a.py",
        "a/x.pyi",
        "a/x.pyx",
        "a/x.c",
        "a/x.h",
        "a/_testcapi.cpython-313.so",
        "a/x.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert trimmed(tmp_path) == {"a/x.json"}


def test_every_module_is_compiled_and_its_source_stays(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("answer = 42\n")
    compiled = str(Path(cache_from_source(str(tmp_path / "module.py"))).relative_to(tmp_path))
    assert trimmed(tmp_path) == {"module.py", compiled}


def test_a_compiled_module_is_taken_without_a_look_at_its_source(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("answer = 42\n")
    trimmed(tmp_path)
    (tmp_path / "module.py").write_text("answer = 43\n")
    command = [sys.executable, "-c", "import module; print(module.answer)"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "42\n"


def library() -> Path:
    """A shared library that a package has brought with it."""
    spec = importlib.util.find_spec("uvloop.loop")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def test_a_stripped_library_is_smaller_and_can_be_loaded(tmp_path: Path) -> None:
    whole = library().read_bytes()
    (tmp_path / library().name).write_bytes(slim.stripped(whole))
    assert len(slim.stripped(whole)) < len(whole)
    load = "import ctypes, sys; ctypes.PyDLL(sys.argv[1]).PyInit_loop"
    subprocess.run([sys.executable, "-c", load, tmp_path / library().name], check=True)


def test_stripping_twice_changes_nothing_more() -> None:
    once = slim.stripped(library().read_bytes())
    assert slim.stripped(once) == once


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x02" + bytes(60)]
)
def test_what_is_no_library_of_this_kind_stays_as_it_is(content: bytes) -> None:
    assert slim.stripped(content) == content


def copied() -> set[str]:
    """What the Dockerfile takes from the checkout, without what may be missing."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split() if "[" not in name}


def test_the_lab_and_make_image_build_from_the_same_files_with_the_same_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/lab"))
    from swarmlab import context

    assert copied() | {"deploy/Dockerfile"} == set(context.SOURCES)
    admitted = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    assert all(any(fnmatch.fnmatch(name, one) for one in admitted) for name in copied())
    assert "slim.py trim /opt/mesh" in DOCKERFILE
    assert "slim.py stdlib" in DOCKERFILE


def test_the_image_has_no_pip_of_ours() -> None:
    assert "python3 -m venv --without-pip /opt/mesh" in DOCKERFILE
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert "site-packages/pip*" in final
    assert "ensurepip" in final

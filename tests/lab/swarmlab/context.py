"""What `docker build` is sent: a tar without times and owners. Same content, same bytes, same fingerprint."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .places import CHECKOUT

SOURCES = (
    "pyproject.toml", "README.md", "deploy/Dockerfile", "deploy/slim.py",
    "deploy/requirements.lock", "deploy/build-requirements.lock", "mesh", "sidecar",
)  # fmt: skip
SIDECAR_TAG = "mesh:latest"
LEFT_OUT = ("__pycache__",)
APPLICATION = Path(__file__).resolve().parents[1] / "images"


@dataclass(frozen=True, slots=True)
class Context:
    """An image to build: its tag, Dockerfile (a name in the files), build arguments, and files by name."""

    tag: str
    dockerfile: str
    arguments: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.dockerfile, self.arguments)).encode())
        for name, path in self.files:
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]

    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, path in self.files:
                info = tarfile.TarInfo(name)
                info.size = path.stat().st_size
                info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                with path.open("rb") as content:
                    archive.addfile(info, content)
        return out.getvalue()


def application() -> Context:
    files = (("app.py", APPLICATION / "app.py"), ("Dockerfile", APPLICATION / "app.Dockerfile"))
    return Context("mesh-app:lab", "Dockerfile", ("BASE=mesh-base:lab",), files)


def sidecar(wheels: Path) -> Context:
    """The product's image, from its own Dockerfile, with the wheels where that looks for them."""
    files = [*_sources(), *((f"build/wheels/{wheel.name}", wheel) for wheel in sorted(wheels.iterdir()))]
    arguments = ("BASE=mesh-base:lab", "PIP_ARGS=--no-index")
    return Context(SIDECAR_TAG, "deploy/Dockerfile", arguments, tuple(files))


def _sources() -> Iterable[tuple[str, Path]]:
    for source in SOURCES:
        path = CHECKOUT / source
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and not any(part in LEFT_OUT for part in file.parts):
                yield str(file.relative_to(CHECKOUT)), file

"""Makes what pip has installed small and fast to start. deploy/Dockerfile runs it, so every image has it.

    slim.py trim FOLDER     removes what running does not need, strips shared libraries, compiles every module
    slim.py stdlib TARGET   compiles those modules of Python itself that the sidecar imports, below TARGET

Images of Python come without compiled modules, and the sidecar's root file system is read-only. Without this,
every start would compile all modules again.
"""

import os
import pkgutil
import py_compile
import shutil
import struct
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from importlib.util import cache_from_source
from pathlib import Path

TEST_FOLDERS = ("test", "tests")
UNUSED_SUFFIXES = (".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".a")
UNUSED_STEMS = ("_testcapi",)
OWN_PACKAGES = ("mesh", "sidecar")

ELF_HEADER_BYTES = 64
ELF_64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
ELF_PROGRAM_HEADERS_AT = 32  # offset of their offset, 8 bytes
ELF_SECTION_HEADERS_AT = 40
ELF_PROGRAM_HEADER_SIZE_AT = 54  # two bytes; the number of program headers follows
ELF_SECTION_HEADER_SIZE_AT = 58  # two bytes; their number and the index of their names follow
SEGMENT_OFFSET_AT = 8  # in a program header: 8 bytes
SEGMENT_SIZE_AT = 32


def trim(folder: Path) -> None:
    """Removes tests, stubs and sources of C below the folder, strips libraries and compiles modules."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.exists():
            continue
        if path.is_dir():
            if path.name in TEST_FOLDERS:
                shutil.rmtree(path)
        elif path.suffix in UNUSED_SUFFIXES or path.name.partition(".")[0] in UNUSED_STEMS:
            path.unlink()
        elif path.suffix == ".so":
            path.write_bytes(stripped(path.read_bytes()))
    for path in sorted(folder.rglob("*.py")):
        compile_module(path, Path(cache_from_source(str(path))))


def stripped(library: bytes) -> bytes:
    """The library without its sections and symbols, which only linkers and debuggers read.

    Loading a library takes its segments alone, and the program headers name these. Anything but a 64-bit
    little-endian ELF file stays as it is.
    """
    if not library.startswith(ELF_64_LITTLE_ENDIAN):
        return library
    (headers,) = struct.unpack_from("<Q", library, ELF_PROGRAM_HEADERS_AT)
    size, count = struct.unpack_from("<HH", library, ELF_PROGRAM_HEADER_SIZE_AT)
    end = max(ELF_HEADER_BYTES, headers + size * count)
    for header in range(headers, headers + size * count, size):
        (offset,) = struct.unpack_from("<Q", library, header + SEGMENT_OFFSET_AT)
        (length,) = struct.unpack_from("<Q", library, header + SEGMENT_SIZE_AT)
        end = max(end, offset + length)
    kept = bytearray(library[:end])
    struct.pack_into("<Q", kept, ELF_SECTION_HEADERS_AT, 0)
    struct.pack_into("<HHH", kept, ELF_SECTION_HEADER_SIZE_AT, 0, 0, 0)
    return bytes(kept)


def compile_module(source: Path, target: Path) -> None:
    """Compiles a module unless that is done. The image's files never change, so no start compares times."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(target), doraise=True, invalidation_mode=mode)


def import_everything() -> None:
    """Imports all modules of the product. Raises ImportError where one of them lacks something."""
    for package in OWN_PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.endswith(".__main__"):
                import_module(module.name)


def imported_from(folder: Path) -> Iterator[Path]:
    """The sources, in the folder, of all modules that are imported now."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and Path(file).resolve().is_relative_to(folder):
            yield Path(file).resolve()


def compile_stdlib(target: Path) -> None:
    """Compiles those modules of Python itself that the product imports and that have not been compiled."""
    target.mkdir(parents=True, exist_ok=True)
    import_everything()
    for source in imported_from(Path(sysconfig.get_path("stdlib")).resolve()):
        compiled = cache_from_source(str(source))
        if not os.path.exists(compiled):
            compile_module(source, target / compiled.lstrip("/"))


if __name__ == "__main__":
    {"trim": trim, "stdlib": compile_stdlib}[sys.argv[1]](Path(sys.argv[2]))

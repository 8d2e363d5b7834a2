"""Fuzz one target: `python -m tests.fuzz.one TARGET SECONDS SEED`.

With atheris, guided by what the code under test does, and going on from what earlier runs have found; where
there is no atheris for this Python or system, with the mutation engine beside this file.
"""

import sys
from pathlib import Path

from tests.fuzz import engine
from tests.fuzz.corpus import corpus

FOUND = Path("build/fuzz")  # inputs found by atheris, and those that failed


def main(name: str, seconds: int, seed: int) -> None:
    try:
        import atheris
    except ImportError:
        _plain(name, seconds, seed)
        return
    with atheris.instrument_imports(include=["mesh"]):
        from tests.fuzz.place import quiet
        from tests.fuzz.targets import TARGETS
    folder = FOUND / name
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus(name)):
        (inputs / f"corpus-{number}").write_bytes(data)
    options = (f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={engine.SIZE_MAX}", "-timeout=10")
    with quiet():
        atheris.Setup([name, str(inputs), *options, f"-artifact_prefix={folder}/"], TARGETS[name]())
        atheris.Fuzz()  # ends the process


def _plain(name: str, seconds: int, seed: int) -> None:
    from tests.fuzz.place import quiet
    from tests.fuzz.targets import TARGETS

    print("no atheris for this Python or system: inputs are mutated at random", flush=True)
    with quiet():
        runs = engine.run(TARGETS[name](), corpus(name), seed, sys.maxsize, seconds)
    print(f"{name}: {runs} inputs, nothing wrong")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

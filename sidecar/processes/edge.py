"""`python -P -m sidecar.processes.edge MODULE FD UID GID MEMORY`: a restricted process.

It imports what it will need (Python itself may be where only root can read), gives up its privileges, and
only then goes on as MODULE and reads something from outside. What it has from the sidecar is one end of a
pair of sockets, a few plain environment variables, and where its log goes.
"""

import encodings.idna  # noqa: F401 - for names to look up; Python would import it when the first one comes
import sys
from importlib import import_module

from sidecar.workers.privileges import Restriction, drop

MODULES = ("sidecar.processes.relay", "sidecar.processes.http")
REFUSED = 77  # exit status (sysexits.h: permission denied)


def main(words: list[str]) -> int:
    module, descriptor, *restriction = words
    if module not in MODULES:
        return REFUSED
    run = import_module(module).run
    try:
        drop(Restriction.from_words(restriction))
    except OSError as error:
        print(
            f"{module}: cannot give up privileges ({error}); it takes CAP_SETUID, CAP_SETGID and CAP_SETPCAP",
            file=sys.stderr,
        )
        return REFUSED
    return int(run(int(descriptor)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

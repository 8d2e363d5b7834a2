"""`python -P -m sidecar.workers.edge MODULE FD UID GID MEMORY`: a restricted process.

Gives up its privileges before it imports anything that reads the network, then goes on as MODULE. What it
has from the sidecar is one end of a pair of sockets, a few plain environment variables, and where its log
goes.
"""

import sys
from importlib import import_module

from sidecar.workers.privileges import Restriction, drop

MODULES = ("sidecar.workers.relay_process", "sidecar.workers.http_process")
REFUSED = 77  # exit status (sysexits.h: permission denied)


def main(words: list[str]) -> int:
    module, descriptor, *restriction = words
    if module not in MODULES:
        return REFUSED
    try:
        drop(Restriction.from_words(restriction))
    except OSError as error:
        print(
            f"{module}: cannot give up privileges ({error}); it takes CAP_SETUID, CAP_SETGID and CAP_SETPCAP",
            file=sys.stderr,
        )
        return REFUSED
    return int(import_module(module).run(int(descriptor)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

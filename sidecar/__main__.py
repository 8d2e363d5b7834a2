"""`python -m sidecar` is `mesh`."""

import sys

from sidecar.cli import main

sys.exit(main())

"""How a benchmark ends that has no figures."""


class BenchmarkFailed(Exception):
    """Something did not work: there is no sense in going on."""


class CannotRun(Exception):
    """A scenario needs what this machine does not have. The others go on."""

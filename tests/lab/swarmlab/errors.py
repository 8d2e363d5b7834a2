"""LabError: something the caller can act on. It is printed without a traceback; the command ends with 2."""


class LabError(Exception):
    """The message says what went wrong and, where known, what to do."""

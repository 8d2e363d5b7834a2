"""Docker's placeholders in a service's `--hostname`, as its engines expand them for each task.

They are Go templates over a handful of fields (swarmkit `template/context.go`). Plain fields and `index` into
the service's labels are all that people use; whatever else stands in braces is not guessed at.
"""

import re
from collections.abc import Mapping

PLACEHOLDER = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
LABEL = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')


def expand(text: str, fields: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """The text with its placeholders filled in; "" when one of them is not understood.

    `fields`: `.Task.Slot` and the like → value. `labels`: the service's. A label that is missing is empty, as
    in Go.
    """
    unknown = False

    def value(found: re.Match[str]) -> str:
        nonlocal unknown
        inner = found[1]
        if label := LABEL.fullmatch(inner):
            return labels.get(label[1], "")
        unknown = unknown or inner not in fields
        return fields.get(inner, "")

    expanded = PLACEHOLDER.sub(value, text)
    return "" if unknown else expanded

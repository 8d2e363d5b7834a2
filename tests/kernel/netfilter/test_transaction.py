"""Operations as nft's text. Whole transactions stand in test_rules, and both renderings beside each other in
test_batches."""

import pytest

from mesh.balance.hash_slots import SlotDraw
from mesh.kernel.netfilter.transaction import (
    Add,
    Delete,
    Drawn,
    Elements,
    Empty,
    Lead,
    Operation,
    OperationKind,
    Put,
    SetOperation,
    Take,
    What,
    as_text,
    line,
)

PORTS = Elements("t", "ports", OperationKind.PROTOCOL_PORT, OperationKind.VERDICT)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (Add(What.CHAIN, "t", "c"), "add chain ip t c"),
        (Add(What.SLOTS, "t", "c"), "add map ip t c { typeof numgen inc mod 2 : ip daddr; }"),
        (Delete(What.SLOTS, "t", "c"), "delete map ip t c"),
        (Empty("t", "c"), "flush chain ip t c"),
        (Lead("t", "c", "10.0.0.7"), "add rule ip t c dnat to 10.0.0.7"),
        (
            Lead("t", "c", Drawn(SlotDraw.HASH, 4, "m"), SetOperation("tcp", 7, 80)),
            "add rule ip t c ip protocol tcp ct mark set 0x7 "
            "dnat to jhash ip saddr mod 4 seed 0x6d657368 map @m:80",
        ),
        (
            Put(PORTS, (("tcp . 80", "goto c"), ("udp . 53", "jump d"))),
            "add element ip t ports { tcp . 80 : goto c, udp . 53 : jump d }",
        ),
        (Put(Elements("t", "s", OperationKind.PORT), (("80", ""),)), "add element ip t s { 80 }"),
        (Take(PORTS, ("tcp . 80", "udp . 53")), "delete element ip t ports { tcp . 80, udp . 53 }"),
    ],
)
def test_an_operation_is_one_line(operation: Operation, text: str) -> None:
    assert line(operation) == text
    assert as_text((operation, operation)) == f"{text}\n{text}\n"

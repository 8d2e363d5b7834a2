"""One forwarder per test; whatever it leaves running ends, and must not have failed."""

from collections.abc import AsyncIterator

import pytest

from tests.dns.forward.asking import Asking


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    yield made
    await made.tasks.close()
    assert made.failures == []

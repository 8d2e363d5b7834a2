"""What the hostile tests share with those of what they attack."""

from tests.http.conftest import stand, world

__all__ = ["stand", "world"]

"""Tunnels are tried by HTTP through them, so HTTP's stand is used."""

from tests.http.conftest import stand as stand

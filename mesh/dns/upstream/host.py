"""The host's servers: the configured ones, else those of its resolv.conf, followed as it changes.

The file is looked at when somebody asks, at most once a second: its inode, size and time of change tell of a
new content, also when it was replaced by renaming. A file that is gone, or names no server (it may be in the
middle of being written), leaves in force what was known, and says so in `fault`.
"""

import os

from mesh.dns.config import RESOLV_CONF_CHECK, DnsConfig
from mesh.dns.upstream.resolvconf import ResolvConf, parse_resolv_conf
from mesh.dns.upstream.servers import Server, parse_servers


class HostServers:
    """Not thread-safe. `fault`: what is wrong with the file now, in words, "" for nothing."""

    def __init__(self, config: DnsConfig) -> None:
        self._fixed = parse_servers(config.upstreams)
        self._path = config.resolv_conf
        self._servers: tuple[Server, ...] = ()
        self._look_again = 0.0
        self._seen: tuple[int, int, int] | None = None
        self.conf = ResolvConf()
        self.fault = ""

    def get(self, now: float) -> tuple[Server, ...]:
        if self._fixed:
            return self._fixed
        if now >= self._look_again:
            self._look_again = now + RESOLV_CONF_CHECK
            self._refresh()
        return self._servers

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                conf = parse_resolv_conf(file.read())
        except OSError as error:
            self._seen, self.fault = None, f"{self._path} cannot be read: {error.strerror}"
            return
        self._seen = seen
        servers = parse_servers(conf.nameservers)
        self.fault = "" if servers else f"{self._path} names no server"
        if servers:
            self._servers, self.conf = servers, conf

"""The host's servers: the configured ones, else those of its resolv.conf, followed as it changes.

The node's file is bound into the sidecar's container, alone or with the folder that holds it. Alone, it is
the file that was there at that moment: one that takes its place by renaming is not seen, and the count of
links of the old one, which is 0 then, tells. Where it is a link into a folder that is not there
(systemd-resolved, whose stub never changes), Docker's copy does.

The file is looked at when somebody asks, at most once a second: its inode, size and time of change tell of a
new content, also when it was replaced by renaming. A file that is gone, or names no server (it may be in the
middle of being written), leaves in force what was known, and that is said.
"""

import logging
import os

from mesh.dns.config import FORWARD_ROUNDS, RESOLV_CONF_CHECK, UPSTREAMS_CONFIGURED_MAX, DnsConfig
from mesh.dns.forward.resolvconf import ResolvConf, parse_resolv_conf
from mesh.dns.forward.route import DnsServer, Manner, parse_servers

DOCKERS_COPY = "/etc/resolv.conf"

REPLACED = (
    "the host's resolv.conf was replaced after {path} was mounted, so its changes are not seen: "
    "restart the sidecar, or mount the folder that holds the file (MESH_RESOLV_CONF of the stack file)"
)

logger = logging.getLogger(__name__)


def resolv_conf_file(path: str) -> str:
    """The file itself, where the path may be the folder that holds it."""
    return os.path.join(path, "resolv.conf") if os.path.isdir(path) else path


class HostServers:
    """Not thread-safe. `faults[path]` says in words what is wrong with the file, as long as something is."""

    def __init__(self, config: DnsConfig, faults: dict[str, str]) -> None:
        self._config, self._faults = config, faults
        self._fixed = parse_servers(config.upstreams, most=UPSTREAMS_CONFIGURED_MAX)
        self._path = config.resolv_conf
        self._servers: tuple[DnsServer, ...] = ()
        self._look_again = 0.0
        self._seen: tuple[int, int, int, int] | None = None
        self.manner = self._manner(ResolvConf())

    def get(self, now: float) -> tuple[DnsServer, ...]:
        """Whom to ask; how, is in `manner`."""
        if self._fixed:
            return self._fixed
        if now >= self._look_again:
            self._look_again = now + RESOLV_CONF_CHECK
            self._refresh()
        return self._servers

    def _refresh(self) -> None:
        if not self._servers and os.path.islink(self._path) and not os.path.exists(self._path):
            logger.info("%s leads out of this container: following %s", self._path, DOCKERS_COPY)
            self._path = DOCKERS_COPY
        path = resolv_conf_file(self._path)
        try:
            status = os.stat(path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_nlink)
            if seen == self._seen:
                return
            with open(path, encoding="utf-8", errors="replace") as file:
                conf = parse_resolv_conf(file.read())
        except OSError as error:
            self._seen = None
            self._say(f"{self._path} cannot be read: {error.strerror}")
            return
        self._seen = seen
        replaced = status.st_nlink == 0
        servers = parse_servers(conf.nameservers)
        if not servers:
            self._say(f"{self._path} names no server")
            return
        self._say(REPLACED.format(path=self._path) if replaced else "")
        if servers != self._servers:
            logger.info("upstream DNS servers: %s", ", ".join(map(str, servers)))
        self._servers, self.manner = servers, self._manner(conf)

    def _manner(self, conf: ResolvConf) -> Manner:
        own = self._config
        return Manner(
            alike=own.alike or conf.rotate,
            rounds=conf.attempts or FORWARD_ROUNDS,
            try_timeout=own.try_timeout if conf.timeout is None else min(conf.timeout, own.deadline),
            tcp=conf.tcp,
        )

    def _say(self, fault: str) -> None:
        if fault and self._faults.get(self._path) != fault:
            logger.warning("%s", fault)
        self._faults.pop(self._path, None)
        if fault:
            self._faults[self._path] = fault

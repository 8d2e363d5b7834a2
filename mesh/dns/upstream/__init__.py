"""THE OTHERS: whom we ask what is not ours, and how.

servers      who they are      `ADDR`, `ADDR:PORT` → server; a route is where a question may go
resolvconf   what a file says  text of resolv.conf(5) → servers and options
host         the host's own    the configured servers, else those of the file, followed as it changes
forwarder    the asking        each question once at a time, one server after the other
"""

from mesh.dns.upstream.forwarder import Forwarder
from mesh.dns.upstream.host import HostServers
from mesh.dns.upstream.servers import Route, Server, SocketFactory, host_socket, parse_servers

__all__ = ["Forwarder", "HostServers", "Route", "Server", "SocketFactory", "host_socket", "parse_servers"]

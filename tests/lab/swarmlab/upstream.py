"""The DNS server behind the nodes: dnsmasq in the client's namespace.

It knows a few names, denies all others with NXDOMAIN at once (so that an image pull fails fast) and asks
nobody. Each question is written to the file `upstream.log`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .places import CLIENT_ADDRESS, Places
from .processes import MARK
from .shell import wait_until, works
from .wire import inside

BIG_TEST_ADDRESSES = 100  # 1.6 kB of answer: more than any UDP reply should carry
ANSWER_SECONDS = 10.0
RECORDS = f"""\
no-daemon
no-resolv
no-hosts
user=root
bind-interfaces
listen-address={CLIENT_ADDRESS}
server=/#/
host-record=external.test,203.0.113.10,2001:db8::10
host-record=client.test,{CLIENT_ADDRESS}
host-record=four.test,203.0.113.11
txt-record=external.test,"mesh lab"
mx-host=external.test,mail.external.test,10
srv-host=_http._tcp.external.test,external.test,80
cname=alias.test,external.test
ptr-record=10.113.0.203.in-addr.arpa,external.test
log-queries
"""


def start(places: Places) -> None:
    hosts = places.state / "upstream.hosts"
    hosts.write_text("".join(f"203.0.113.{100 + n} big.test\n" for n in range(BIG_TEST_ADDRESSES)))
    config = places.state / "upstream.conf"
    files = {"addn-hosts": hosts, "log-facility": log_file(places), "pid-file": places.state / "upstream.pid"}
    config.write_text(RECORDS + "".join(f"{option}={path}\n" for option, path in files.items()))
    subprocess.Popen(
        inside(places.client, ["dnsmasq", f"--conf-file={config}"]),
        env={**os.environ, MARK: str(places.state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(places.state / "upstream.err").open("wb"),
        start_new_session=True,
    )
    complaint = f"the lab's DNS server does not answer: see {places.state}/upstream.err"
    wait_until(lambda: answers(places), ANSWER_SECONDS, lambda: complaint)


def log_file(places: Places) -> Path:
    return places.state / "upstream.log"


def answers(places: Places) -> bool:
    return works(inside(places.client, ["dig", "+tries=1", "+time=1", f"@{CLIENT_ADDRESS}", "external.test"]))

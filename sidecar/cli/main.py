"""The command line: `mesh COMMAND`.

    run, demo                                     the sidecar; a try-out without Docker and root
    status, services, endpoints, networks, nodes  tables from the sidecar on this machine, or --json
    routes                                        routers of host-routed HTTP
    resolve                                       what an asker gets for a name, and why
    explain                                       the way to a port, service, name or page, as it is now
    doctor                                        checks of node and cluster, each with a remedy
    check                                         every fault in a configuration or catalogue
    cleanup                                       remove what a sidecar that died left in the kernel

Exit codes: 0 done; 1 it could not be done (no sidecar here, no such service, the name does not resolve);
2 wrong arguments, configuration or catalogue; 130 interrupted; 141 nobody reads the output any more.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mesh.errors import ConfigError, MeshError, Problem
from mesh.parsing import is_int, parse_port, shown
from sidecar import config
from sidecar.admin import client, tables
from sidecar.cli import check
from sidecar.config import ListenAddress
from sidecar.version import mesh_version

OK, FAILED, WRONG, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

MAX_PORT = 65_535
PROTOCOLS = ("tcp", "udp", "sctp")

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Errors of the project become one clear message."""
    options = parser().parse_args(arguments)
    command: Command = options.command
    try:
        code = command(options)
        sys.stdout.flush()
    except ConfigError as error:
        return _complain(*map(str, error.problems), code=WRONG)
    except MeshError as error:
        return _complain(str(error), code=FAILED)
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


# --- arguments ----------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mesh",
        description="DNS, virtual IPs and published ports for Docker Swarm: one sidecar per node.",
        epilog="exit codes: 0 done, 1 could not be done, 2 wrong arguments, configuration or catalogue",
    )
    top.add_argument("--version", action="version", version=f"mesh {mesh_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_process(commands)
    _add_views(commands)
    _add_resolve(commands)
    _add_explain(commands)
    _add_admin(_add(commands, "doctor", _doctor, "check this node and its cluster, with remedies"))
    _add(commands, "check", _check, "name every fault of a configuration or catalogue").add_argument("file")
    _add(commands, "cleanup", _cleanup, "remove every rule, route and socket of ours from this node")
    return top


def _add(commands: Any, name: str, command: Command, help_: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=help_, description=f"{help_.capitalize()}."
    )
    added.set_defaults(command=command)
    return added


def _add_process(commands: Any) -> None:
    run = _add(commands, "run", _run, "run the sidecar")
    run.add_argument("--config", metavar="FILE", help="mesh.yml (also: MESH_CONFIG)")
    run.add_argument("--catalog", metavar="FILE", help="take the catalogue from this file, not from Docker")
    run.add_argument("--dns", metavar="ADDR:PORT", help="where to answer DNS, beside captured containers")
    run.add_argument("--metrics", metavar="ADDR:PORT", help="/metrics, /healthz, /readyz")
    run.add_argument("--admin", metavar="ADDR:PORT", help="the admin API over TCP as well, on loopback")
    _add(commands, "demo", _demo, "try it here, without Docker and root (DEMO_SECONDS=N ends it)")


def _add_views(commands: Any) -> None:
    helps = {
        "status": "how this node's sidecar is doing, and every problem it knows of",
        "services": "services with their virtual IPs, ports and endpoints",
        "endpoints": "the tasks of a service",
        "routes": "routers of host-routed HTTP with their rules and endpoints",
        "networks": "networks with their subnets",
        "nodes": "nodes of the cluster",
    }
    for name, help_ in helps.items():
        view = _add(commands, name, _view, help_)
        view.set_defaults(view=name, service=None)
        if name == "endpoints":
            view.add_argument("service", metavar="SERVICE")
        _add_admin(view)


def _add_resolve(commands: Any) -> None:
    _add_question(_add(commands, "resolve", _resolve, "what an asker gets for a name, and why"))


def _add_question(resolve: argparse.ArgumentParser) -> None:
    resolve.add_argument("name", metavar="NAME")
    resolve.add_argument(
        "--from", dest="asker", metavar="CONTAINER", default="", help="default: the node itself"
    )
    resolve.add_argument("--type", default="A", help="A, AAAA, PTR, … (default: A)")
    _add_admin(resolve)


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="the way to a port, service, name or page, hop by hop, as it is now",
        description="The way to a port, service, name or page, hop by hop: as wanted and as it is.",
    )
    subjects = explain.add_subparsers(title="what", metavar="WHAT", required=True)
    port = _add(subjects, "port", _explain_port, "a published port of this node: 80 or 53/udp")
    port.add_argument("port", metavar="PORT[/PROTOCOL]", type=_published)
    _add_admin(port)
    service = _add(subjects, "service", _explain_service, "a service's virtual IPs and published ports")
    service.add_argument("service", metavar="SERVICE")
    _add_admin(service)
    http = _add(subjects, "http", _explain_http, "whose a request is, and where it would go")
    http.add_argument("host", metavar="HOST")
    http.add_argument("path", metavar="PATH", nargs="?", default="/")
    http.add_argument("--method", default="GET", help="default: GET")
    _add_admin(http)
    name = _add(subjects, "name", _resolve, "what an asker gets for a name, and why (as: mesh resolve)")
    _add_question(name)


def _published(text: str) -> tuple[int, str]:
    """`80`, `53/udp` → number and protocol."""
    number, slash, protocol = text.partition("/")
    if not is_int(number, 1, MAX_PORT):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no port: 1 to {MAX_PORT}, or like 53/udp")
    if slash and protocol not in PROTOCOLS:
        raise argparse.ArgumentTypeError(f"{protocol!r} is not one of {', '.join(PROTOCOLS)}")
    return parse_port(number), protocol


def _add_admin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--admin", metavar="SOCKET|ADDR:PORT", help="where the sidecar is asked (also: MESH_ADMIN_SOCKET)"
    )
    command.add_argument("--json", action="store_true", help="for machines")


# --- commands -----------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    flags = {name: getattr(options, name) for name in ("catalog", "dns", "metrics", "admin")}
    settings = config.load(options.config, flags=flags)
    from sidecar.lifecycle import run  # imported late, as below: a table needs no event loop or kernel

    return run(settings)


def _demo(_: argparse.Namespace) -> int:
    from sidecar.cli.demo import main as run_demo

    return run_demo(os.environ.get("DEMO_SECONDS", ""))


def _check(options: argparse.Namespace) -> int:
    try:
        print(check.check(options.file))
    except ConfigError as error:
        print("\n".join(map(str, error.problems)))  # what was asked for: to stdout
        return WRONG
    return OK


def _view(options: argparse.Namespace) -> int:
    path = f"/v1/{options.view}" + (f"/{options.service}" if options.service else "")
    _show(client.get(_admin(options), path), options, tables.VIEWS[options.view])
    return OK


def _resolve(options: argparse.Namespace) -> int:
    query = {"name": options.name, "type": options.type, "from": options.asker}
    document = client.get(_admin(options), "/v1/resolve", **query)
    _show(document, options, tables.resolution)
    return OK if document["rcode"] == "NOERROR" else FAILED


def _explain_port(options: argparse.Namespace) -> int:
    number, protocol = options.port
    query = {"protocol": protocol} if protocol else {}
    document = client.get(_admin(options), f"/v1/explain/port/{number}", **query)
    _show(document, options, tables.ports_explained)
    return OK


def _explain_http(options: argparse.Namespace) -> int:
    query = {"host": options.host, "target": options.path, "method": options.method}
    document = client.get(_admin(options), "/v1/explain/http", **query)
    _show(document, options, tables.http_explained)
    return OK


def _explain_service(options: argparse.Namespace) -> int:
    document = client.get(_admin(options), f"/v1/explain/service/{options.service}")
    _show(document, options, tables.service_explained)
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from mesh.telemetry.doctor import failed
    from sidecar.cli.doctor import Doctor, report

    checks = list(Doctor(config.load(), _admin(options)).checks())
    _show(report(checks), options, tables.diagnosis)
    return FAILED if failed(checks) else OK


def _cleanup(_: argparse.Namespace) -> int:
    from mesh.kernel.cleanup import cleanup

    removed = asyncio.run(cleanup(config.load().docker.netns))
    for name in removed.tables:
        print(f"removed our table in {name}")
    print(f"removed firewall rules: {removed.firewall_rules}")
    return _complain(*(f"{where}: {why}" for where, why in removed.left), code=FAILED) if removed.left else OK


def _show(
    document: tables.Document,
    options: argparse.Namespace,
    view: Callable[[tables.Document], list[tables.Section]],
) -> None:
    print(tables.as_json(document) if options.json else tables.as_text(view(document)))


def _admin(options: argparse.Namespace) -> ListenAddress:
    """Address of the admin API: the flag's, or the one in the sidecar's own configuration."""
    if not options.admin:
        places = config.load().admin.places
        if not places:
            raise ConfigError([Problem("defaults", "admin", "neither a socket nor an address is configured")])
        return next((one for one in places if _may_answer(one)), places[0])
    try:
        return config.parse_listen_address(options.admin)
    except ValueError as error:
        raise ConfigError([Problem("command line", "--admin", str(error))]) from error


def _may_answer(place: ListenAddress) -> bool:
    """A sidecar that could not make its socket may still be asked over TCP."""
    return not isinstance(place, config.UnixSocket) or os.path.exists(place.path)


# --- ends ---------------------------------------------------------------------------------------------------


def _complain(*lines: str, code: int) -> int:
    for line in lines:
        print(f"mesh: {line}", file=sys.stderr)
    return code


def _nobody_reads() -> int:
    """Ends quietly after `mesh services | head`: the interpreter must not flush into the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE

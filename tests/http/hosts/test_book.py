"""A manager's book: what it writes beside the labels, after restarts, and what it takes over from others."""

from dataclasses import replace

from mesh.catalog.model import Service, Task, TaskState
from mesh.http.hosts import book as hosts_book
from mesh.http.hosts.assigned import AssignedHosts
from mesh.http.hosts.book import HostBook
from mesh.http.hosts.ownership import HAND_OVER_SECONDS

RULE, PORT = "traefik.http.routers.web.rule", "traefik.http.services.web.loadbalancer.server.port"


def service(id_: str, stack: str, rule: str = "") -> Service:
    labels = {"com.docker.stack.namespace": stack} | ({RULE: rule, PORT: "80"} if rule else {})
    return Service(id_, f"{stack}_{id_}", labels=labels)


class Manager:
    def __init__(self, book: HostBook | None = None) -> None:
        self.book = book or HostBook()
        self.services: dict[str, Service] = {}
        self.told: dict[str, Service] = {}
        self.created: dict[str, str] = {}
        self.now = 1000.0
        self.book.begin({})

    def put(self, *services: Service, later: float = 1.0) -> None:
        self.services |= {one.id: one for one in services}
        self.look(later)

    def remove(self, id_: str) -> None:
        del self.services[id_]
        self.look()

    def look(self, later: float = 1.0) -> None:
        self.now += later
        self.told = dict(self.book.lay_over(self.services, self.created, self.now))

    def since(self, id_: str, host: str = "a") -> float | None:
        return (self.told[id_].holds or {}).get(host)


A = "Host(`a`)"


def test_what_a_stack_holds_is_written_into_its_services() -> None:
    manager = Manager()
    manager.put(service("s2", "zoo", A), service("s9", "zoo"))
    manager.put(service("s1", "ape", A))
    assert manager.told["s2"].holds == {"a": 1001.0, "service web": 1001.0}
    assert manager.told["s1"].holds == {"service web": 1002.0}
    assert manager.told["s9"].holds is None
    manager.remove("s9")
    manager.remove("s2")
    assert manager.since("s1") == manager.now


def test_a_service_that_has_not_changed_is_the_same_object() -> None:
    manager = Manager()
    manager.put(service("s1", "zoo", A), service("s2", "ape", "Host(`b`)"))
    before, version = manager.told, manager.book.version
    task = Task("t", "t", "n", TaskState.RUNNING)
    manager.put(replace(manager.services["s1"], tasks=(task,)))
    assert manager.told["s2"] is before["s2"]
    assert manager.told["s1"] == replace(before["s1"], tasks=(task,))
    assert manager.book.version == version, "nobody has another host"


def test_a_restart_continues_from_the_saved_view() -> None:
    manager = Manager()
    manager.put(service("s2", "zoo", A))
    manager.put(service("s1", "ape", A))
    other = Manager()
    other.book.begin(manager.told)
    other.services = manager.services
    other.look(later=100.0)
    assert (other.since("s2"), other.since("s1")) == (1001.0, None)


def test_without_a_record_the_older_service_holds_the_host() -> None:
    manager = Manager()
    manager.created = {"s1": "2026-03-01T00:00:00Z", "s2": "2026-01-01T00:00:00Z"}
    manager.put(service("s1", "ape", A), service("s2", "zoo", A))
    assert (manager.since("s1"), manager.since("s2")) == (None, 1001.0)
    manager.created["s0"] = "2020-01-01T00:00:00Z"
    manager.put(service("s0", "old", A))
    assert manager.since("s0") is None, "an old service that claims it only now"


def test_a_deploy_may_move_a_host_between_services() -> None:
    manager = Manager()
    manager.put(service("s1", "zoo", A), service("s2", "zoo"))
    manager.put(service("s3", "ape", A))
    manager.put(service("s1", "zoo"))
    assert manager.since("s3") is None
    manager.put(service("s2", "zoo", A))
    assert manager.since("s2") == 1001.0
    manager.put(service("s2", "zoo"))
    manager.look(later=HAND_OVER_SECONDS)
    assert manager.since("s3") == manager.now


def test_the_record_of_a_longer_watch_is_adopted() -> None:
    """The other one was not there when zoo came first, and guesses from the services' age."""
    manager, other = Manager(), Manager()
    manager.put(service("s2", "zoo", A))
    manager.put(service("s1", "ape", A))
    other.services, other.created = manager.services, {"s1": "2025", "s2": "2026"}
    other.look()
    assert (other.since("s1"), other.since("s2")) == (1001.0, None)
    other.book.adopt(manager.book.record())
    other.look()
    assert (other.since("s1"), other.since("s2")) == (None, 1001.0)
    assert (other.book.since, manager.book.since) == (1001.0, 1001.0)
    other.book.lose_sight()
    other.look()
    assert other.book.since == other.now


def test_the_configuration_decides_before_the_order_of_arrival() -> None:
    manager = Manager(HostBook(assigned=AssignedHosts({"zoo": ("a",)})))
    manager.put(service("s1", "ape", "Host(`a`) || Host(`b`)"))
    assert (manager.since("s1"), manager.since("s1", "b")) == (None, 1001.0)
    manager.put(service("s2", "zoo", A))
    assert manager.since("s2") == 1002.0


def test_labels_that_raise_a_bug_claim_nothing(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    read = hosts_book.read_labels

    def failing(one: Service, exposed: bool) -> object:
        if one.id == "bad":
            raise ZeroDivisionError
        return read(one, exposed)

    monkeypatch.setattr(hosts_book, "read_labels", failing)
    manager = Manager()
    manager.put(service("bad", "ape", A), service("s1", "zoo", A))
    assert (manager.since("bad"), manager.since("s1")) == (None, 1001.0)

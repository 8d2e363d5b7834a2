"""A request as rules and middlewares see it."""

from dataclasses import dataclass, field


@dataclass
class FakeRequest:
    """A `matchers.Request`. `fields`: name in lower case → values."""

    host: str = "a.example"
    path: str = "/"
    method: str = "GET"
    query: str = ""
    client: str = "10.0.0.1"
    fields: dict[str, list[str]] = field(default_factory=dict)

    def header(self, name: str) -> list[str]:
        return self.fields.get(name, [])

"""The status page: the sections of `mesh status` as one HTML document that loads nothing from anywhere."""

from collections.abc import Iterable
from html import escape

from sidecar.admin.tables import Section

# What a browser may do with the page: show it. No scripts, no forms, no frames, nothing from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'"
)
REFRESH = 5  # seconds

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
h2 { margin: 1.6rem 0 .3rem; font-size: 1.05rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
th { font-size: .75rem }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
"""


def render(title: str, sections: Iterable[Section]) -> str:
    body = "\n".join(map(_section, sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH}"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n"
        "<p>JSON: /v1/status, /v1/services, /v1/endpoints/SERVICE, /v1/networks, /v1/nodes, /v1/catalog, "
        "/v1/resolve?name=NAME&amp;from=CONTAINER</p></body></html>\n"
    )


def _section(section: Section) -> str:
    title = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    if not section.rows:
        return f"{title}<p>{escape(section.empty)}</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in section.headers)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in section.rows)
    return f"{title}<table>{f'<tr>{head}</tr>' if head else ''}{rows}</table>"

"""Charts, by plotly; imported where a page is made, for it takes as long as all the rest."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import posixpath
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from xcat_avs.errors import AvsError
from xcat_avs.escape import printable
from xcat_avs.report import short_size

COLORS = (
    "#3a6186",
    "#4f7f5c",
    "#8a6d3b",
    "#7b5b82",
    "#2f7f86",
    "#8c5454",
    "#5f6b7a",
    "#6b7d3f",
)  # white is read on them
OTHER = "#8a929c"
SMALL = 400  # of a whole: what is less than one part in so many has no field of its own
# Draws each figure in its place, in the colours of the page; without it the tables say the same.
DRAW = """
(function () {
  function draw() {
    var style = getComputedStyle(document.body);
    document.querySelectorAll('.chart').forEach(function (place) {
      var figure = JSON.parse(document.getElementById(place.id + '-data').textContent);
      var layout = figure.layout;
      layout.paper_bgcolor = layout.plot_bgcolor = 'rgba(0,0,0,0)';
      layout.font = {color: style.color, family: style.fontFamily, size: 13};
      Object.keys(layout).forEach(function (name) {
        if (/^[xy]axis/.test(name)) { layout[name].gridcolor = style.getPropertyValue('--line'); }
      });
      Plotly.react(place, figure.data, layout, {displayModeBar: false, responsive: true});
    });
  }
  document.documentElement.classList.add('drawn');
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
})();
"""


def need() -> None:
    """Raise AvsError where there is no plotly."""
    try:
        import plotly.graph_objects  # noqa: F401
    except ImportError:
        raise AvsError(
            f"a page has charts, which plotly makes, and plotly is not installed; `{sys.executable} -m pip install plotly` "
            "brings it, and so does, where avsimage runs by the system's own Python, the package python3-plotly of Debian and Ubuntu"
        ) from None


def library() -> str:
    """The program in a browser that draws."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def script(code: str) -> str:
    return f"<script>{code}</script>"


def permission(*codes: str) -> str:
    """What the browser may do with a page: run these scripts, and ask nobody for anything."""
    sums = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in codes)
    return f"default-src 'none'; script-src {sums}; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"


def figure(name: str, what: str, drawing: Any) -> str:
    """A place for a figure, and its data. what: says it to who cannot see it."""
    data = drawing.to_json() if hasattr(drawing, "to_json") else json.dumps(drawing)
    for char in "<>&":  # nothing in it ends the element
        data = data.replace(char, f"\\u{ord(char):04x}")
    label = html.escape(printable(what))
    return (f'<div class="chart" id="{name}" role="img" aria-label="{label}"></div>'
            f'<script type="application/json" id="{name}-data">{data}</script>')  # fmt: skip


def _label(value: object) -> str:
    """A text for plotly, which takes some HTML in it for what it is."""
    return html.escape(printable(str(value)))


def treemap(nodes: Sequence[tuple[str, str, str, int]]) -> Any:
    """Fields in fields. nodes: id, id of the one around it ("" for none), name, bytes of all in it; that one first."""
    import plotly.graph_objects as go

    # Two ids may look the same, or be the same: two kernels, or a library for two architectures. The first is meant.
    number = {item[0]: str(place) for place, item in reversed([*enumerate(nodes)])}
    trace = go.Treemap(
        ids=[*map(str, range(len(nodes)))], parents=[number.get(item[1], "") for item in nodes],
        labels=[_label(item[2]) for item in nodes], customdata=[_label(item[0]) for item in nodes],
        values=[item[3] for item in nodes], text=[short_size(item[3]) for item in nodes],
        branchvalues="total", marker={"colors": _colors(nodes), "line": {"width": 1, "color": "rgba(255,255,255,0.35)"}}, textinfo="label+text",
        hovertemplate="%{customdata}<br>%{text}, %{percentRoot:.1%} of all<extra></extra>",
        textfont={"color": "#ffffff"}, pathbar={"textfont": {"color": "#ffffff"}}, tiling={"pad": 1},
    )  # fmt: skip
    legible = {"minsize": 9, "mode": "hide"}
    return go.Figure(
        trace, go.Layout(margin={"l": 0, "r": 0, "t": 4, "b": 0}, height=460, template="none", uniformtext=legible)
    )


def _colors(nodes: Sequence[tuple[str, str, str, int]]) -> list[str]:
    """The colour of each: the fields in the outermost, and those in these, have one of their own, which all below share."""
    depths: dict[str, int] = {}
    found: dict[str, str] = {}
    for id, parent, _, _ in nodes:
        depths[id] = depths[parent] + 1 if parent else 0
        own = COLORS[sum(depth in (1, 2) for depth in depths.values()) % len(COLORS)]
        found[id] = OTHER if not parent else own if depths[id] < 3 else found[parent]
    return [found[item[0]] for item in nodes]


def directories(sizes: Mapping[str, int]) -> Any:
    """A treemap of bytes by directory, `/` and all that are large enough below it; what else is in one is one field."""
    nodes: list[tuple[str, str, str, int]] = []
    rest: dict[str, int] = {}  # a directory that holds others -> its bytes beside them
    for path in sorted(sizes, key=lambda path: (path.count("/"), path != "/", path)):
        parent = "" if path == "/" else posixpath.dirname(path)
        nodes.append((path, parent, posixpath.basename(path) or "/", sizes[path]))
        rest[parent] = rest.get(parent, sizes.get(parent, 0)) - sizes[path]
    return treemap([*nodes, *((f"{path}/*", path, "all else", left) for path, left in rest.items()
                              if path and left * SMALL >= sizes["/"])])  # fmt: skip


def packages(sizes: Sequence[tuple[str, int]]) -> Any:
    """A treemap of bytes by package, the largest first; those that are small together."""
    total = sum(size for _, size in sizes)
    large = [(name, size) for name, size in sizes if size * SMALL >= total]
    small = [size for _, size in sizes if size * SMALL < total]
    nodes = [("all packages", "", "all packages", total), *((name, "all packages", name, size) for name, size in large)]
    if small:
        words = f"{len(small)} smaller ones"
        nodes.append((words, "all packages", words, sum(small)))
    return treemap(nodes)


def history(revisions: Sequence[Mapping[str, Any]]) -> Any:
    """Size, packages and build time over the revisions, the oldest first."""
    from plotly.subplots import make_subplots

    rows = (("Size (MiB)", [_part(item["bytes"], 2**20) for item in revisions]),
            ("Packages", [item["packages"] for item in revisions]),
            ("Build (minutes)", [_part(item["seconds"], 60) for item in revisions]))  # fmt: skip
    found = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09, subplot_titles=[row[0] for row in rows]
    )
    said = [
        f"revision {item['number']}, {_label(item['date'])}<br>{_label(item['message'])[:120]}" for item in revisions
    ]
    for number, (_, values) in enumerate(rows, 1):
        found.add_scatter(
            x=[str(item["number"]) for item in revisions], y=values, row=number, col=1, mode="lines+markers", text=said,
            line={"color": COLORS[number - 1], "width": 2}, marker={"size": 7}, hovertemplate="%{y:,.5~r}<br>%{text}<extra></extra>",
        )  # fmt: skip
    found.update_xaxes(type="category", nticks=12, showgrid=False)
    found.update_yaxes(nticks=4)
    found.update_layout(height=520, showlegend=False, template="none", margin={"l": 56, "r": 12, "t": 28, "b": 32})
    return found


def _part(value: object, unit: int) -> Any:
    return round(value / unit, 2) if isinstance(value, (int, float)) else None

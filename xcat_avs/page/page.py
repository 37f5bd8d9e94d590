"""The page: its parts in their order, with the styles and scripts, in one file that asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence

from xcat_avs.page import charts, sections
from xcat_avs.page.parts import text
from xcat_avs.page.place import GENERATOR
from xcat_avs.page.sections import Data

STYLE = """
:root { --ink: #1d2733; --faint: #5c6875; --line: #d9dee4; --back: #ffffff; --card: #f5f7f9; --mark: #24527a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ec; --faint: #9aa6b3; --line: #343d48; --back: #14191f; --card: #1c232b; --mark: #8fb8de; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: var(--back); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
header { border-bottom: 3px solid var(--mark); background: var(--card); padding: 20px 16px 14px; }
header > *, main { max-width: 1088px; margin-left: auto; margin-right: auto; }
main { padding-bottom: 48px; }
body > main { width: calc(100% - 32px); }
h1 { font-size: 22px; line-height: 1.25; margin-top: 0; margin-bottom: 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
p { margin-top: 0; margin-bottom: 0; overflow-wrap: anywhere; }
.sub, .note { color: var(--faint); }
.note { margin-bottom: 8px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 20px; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; list-style: none; padding: 0; margin: 18px 0 0; }
.tiles li { flex: 1 1 130px; min-width: 0; overflow-wrap: anywhere; padding: 10px 14px;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
.tiles b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--faint); font-size: 13px; }
.wide { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; vertical-align: top; padding: 4px 18px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 12em; }
th { color: var(--faint); font-weight: 600; font-size: 13px; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n:last-child, th:last-child { white-space: nowrap; min-width: 0; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--mark); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; margin: 8px 0;
  font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
.chart { display: none; }
.drawn .chart { display: block; margin: 8px 0; }
.drawn .without { display: none; }
@media (max-width: 560px) {
  body { font-size: 14px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 6px; }
  th, td { padding-right: 12px; }
}
@media print { details > * { display: block; } .chart { break-inside: avoid; } }
"""
PARTS = (
    sections.boot, sections.nodes, sections.changes, sections.directories, sections.packages, sections.history,
    sections.privileges, sections.report, sections.inputs,
)  # fmt: skip


def make(title: str, made: str, said: Sequence[tuple[str, str]], data: Data) -> str:
    """The page of a version. made: by what and when. said: its facts. data: what `show` says, with `survey` and `nodes`."""
    library = charts.library()
    body = [sections.summary(said, data), *(part(data) for part in PARTS)]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}">
<meta http-equiv="Content-Security-Policy" content="{charts.permission(library, charts.DRAW)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{text(title)}</h1><p class="sub">{text(made)}</p>
<p class="sub without">The charts need JavaScript; the tables say the same.</p></header>
<main>
{"".join(body)}
</main>
{charts.script(library)}
{charts.script(charts.DRAW)}
</body>
</html>
"""

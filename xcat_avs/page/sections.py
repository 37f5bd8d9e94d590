"""The parts of a page, each from what `show` says of a version, and from what was read of it for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xcat_avs.clock import local
from xcat_avs.errors import counted
from xcat_avs.page import charts
from xcat_avs.page.parts import Number, change, count, facts, folded, lines, note, section, size, table, text
from xcat_avs.report import short_size

MOST = 25  # rows of a table under a chart
Data = Mapping[str, Any]


def summary(said: Sequence[tuple[str, str]], data: Data) -> str:
    """said: what `show` has at its beginning, a name and a value each."""
    return section("Version", facts((name.rstrip(":"), value) for name, value in said), *_tiles(data))


def _tiles(data: Data) -> Iterator[str]:
    survey = data["survey"]
    boots = _boots(data)
    shown = [
        ("Size", short_size(survey["bytes"]) if survey["bytes"] else "-"),
        ("Packages", f"{len(survey['packages']):,}"),
        ("setuid, setgid, capabilities", f"{len(survey['privileges']):,}"),
        *([("Boot", ", ".join(dict.fromkeys(str(item["result"]) for item in boots)))] if boots else []),
    ]
    yield '<ul class="tiles">' + "".join(
        f"<li><b>{text(value)}</b><span>{text(name)}</span></li>" for name, value in shown
    ) + "</ul>"  # fmt: skip


def _boots(data: Data) -> Sequence[Data]:
    """What is on record of boots of the tag. The one place for it is tag.boots of what `show` says."""
    found: Sequence[Data] = data.get("tag", {}).get("boots", ())
    return found


def boot(data: Data) -> str:
    """How it booted when it was tried; nothing where it never was."""
    rows = [
        (item["result"], item["why"], item["osimage"], item["archive"], Number(f"{item['seconds']:.0f}s"), item["accelerator"],
         Number(f"{item['needed']} MiB"), local(item["date"]), item["user"], item["units"] or "-")
        for item in _boots(data)
    ]  # fmt: skip
    headers = (
        "Result",
        "What it reached",
        "Osimage",
        "Archive",
        "Time",
        "By",
        "A node needs",
        "Date",
        "User",
        "Failed units",
    )
    return section("Boot", table(headers, rows)) if rows else ""


def nodes(data: Data) -> str:
    """The nodes that boot it, by the osimage that serves it."""
    found = data["nodes"]
    if not found:
        return section("Nodes", note("No osimage serves this version now."))
    rows = [
        (item["osimage"], item["tag"], count(len(item["nodes"])), item["noderange"] or "-", "due" if item["nodeset_due"] else "-")
        for item in found
    ]  # fmt: skip
    return section("Nodes", table(("Osimage", "Tag", "Nodes", "Noderange", "nodeset"), rows))


def changes(data: Data) -> str:
    """Packages and sizes against the tag before it."""
    previous = data["survey"]["previous"]
    if not previous:
        return section("Changes", note("There is no tag before this version."))
    title = f"Changes since tag {previous['tag']}"
    rows = [(name, old or "-", new or "-", word) for name, old, new, word in previous["packages"]]
    counts: dict[str, int] = {}
    for *_, word in rows:
        counts[word] = counts.get(word, 0) + 1
    words = ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "no package differs"
    packages = table(("Package", "Old", "New", "Change"), rows) if rows else ""
    sizes = previous["sizes"]
    totals = [sum(pair[side] for pair in sizes.values()) for side in (0, 1)]
    tops = [(name, size(old), size(new), change(old, new)) for name, (old, new) in sizes.items() if old or new]
    tops.append(("all", size(totals[0]), size(totals[1]), change(*totals)))
    return section(
        title,
        folded(f"Packages: {words}", packages, is_open=len(rows) <= MOST),
        table(("Directory", "Old", "New", "Change"), tops)
        if sizes
        else note("The sizes of one of them are not known."),
    )


def directories(data: Data) -> str:
    sizes = data["survey"]["sizes"]
    if not sizes:
        return section(
            "Size by directory", note("This version has no manifest, so the sizes of its directories are not known.")
        )
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:MOST]
    what = "Treemap of the image by directory; the table below has the largest"
    return section(
        "Size by directory",
        charts.figure("directories", what, charts.directories(sizes)),
        folded(
            f"The {len(largest)} largest",
            table(("Directory", "Size, with all below it"), [(name, size(of)) for name, of in largest]),
        ),
    )


def packages(data: Data) -> str:
    survey = data["survey"]
    found = [(str(name), of) for name, _, _, of in survey["packages"] if of]
    found.sort(key=lambda item: -item[1])
    rows = [(name, version, arch, size(of)) for name, version, arch, of in survey["packages"]]
    all_of_them = folded(f"Every package ({len(rows):,})", table(("Package", "Version", "Architecture", "Size"), rows))
    if not found:
        why = survey["problem"] or "Its package database says no sizes."
        return section("Size by package", note(why), all_of_them if rows else "")
    largest = table(("Package", "Size"), [(name, size(of)) for name, of in found[:MOST]])
    what = "Treemap of the image by package; the table below has the largest"
    return section(
        "Size by package",
        note("As the package database says; what an exlist leaves out counts as well."),
        charts.figure("packages", what, charts.packages(found)),
        folded(f"The {len(found[:MOST])} largest", largest),
        all_of_them,
    )


def history(data: Data) -> str:
    revisions = data["survey"]["revisions"]
    rows = [
        (count(item["number"]), local(item["date"]), item["author"], count(item["packages"]), size(item["bytes"]),
         Number(f"{item['seconds']:.0f}s" if item["seconds"] is not None else "-"), ", ".join(item["tags"]) or "-", item["message"])
        for item in revisions
    ]  # fmt: skip
    headers = ("Revision", "Date", "Author", "Packages", "Size", "Build", "Tags", "Message")
    chart = ""
    if len(revisions) > 1:
        oldest_first = [{**item, "date": local(item["date"])} for item in reversed(revisions)]
        what = "Size, packages and build time over all revisions; the table below has the numbers"
        chart = charts.figure("history", what, charts.history(oldest_first))
    return section(
        "History", chart, folded(counted(len(rows), "revision"), table(headers, rows), is_open=len(rows) <= MOST)
    )


def privileges(data: Data) -> str:
    found = data["survey"]["privileges"]
    title = "setuid, setgid and capabilities"
    return section(title, table(("File", "Rights"), found) if found else note("No file has any."))


def report(data: Data) -> str:
    found = data.get("report")
    return section("Report", lines(found.rstrip("\n")) if found else note("No report is stored."))


def inputs(data: Data) -> str:
    found = data["inputs"]
    shown = (
        folded(counted(len(found), "file"), lines("\n".join(found)))
        if found
        else note("It does not say what it was built from.")
    )
    return section("Built from", shown)

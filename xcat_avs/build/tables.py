"""The tables of a create: its steps and its add-ons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xcat_avs import clock
from xcat_avs.build.building import Built
from xcat_avs.build.markers import AddonResult, StepResult
from xcat_avs.report import RIGHT, Table, as_lines, mebibytes, short_size


def report_blocks(built: Built, completed: str, message: str, said: Mapping[str, Sequence[str]]) -> list[object]:
    """The report of a create, which is stored as well. said: what steps have to say, by their names."""
    packages = built.image.version.packages
    return [
        f"Image rebuild completed at {clock.ctime(completed)}",
        message,
        step_table(built.steps, packages),
        *([addon_table(built.addons, packages)] if built.addons else []),
        *(as_lines([f"{name}:", *(f"  {line}" for line in lines)]) for name, lines in said.items()),
        f"Image {built.image.profile} created",
    ]


def step_table(steps: Iterable[StepResult], packages: str) -> Table:
    """The report of a create: a row a step and the total.

    packages: `rpm` or `deb`, for the headers.
    """
    rows = []
    seconds = 0.0
    results = list(steps)
    for step in results:
        seconds += step.seconds
        count, size = step.packages_after - step.packages_before, step.bytes_after - step.bytes_before
        rows.append(
            (
                step.name,
                f"{round(step.seconds)}s",
                str(count),
                mebibytes(size),
                str(step.packages_after),
                mebibytes(step.bytes_after),
            )
        )
    if results:
        first, last = results[0], results[-1]
        count, size = last.packages_after - first.packages_before, last.bytes_after - first.bytes_before
        rows.append(
            (
                "TOTAL",
                f"{round(seconds)}s",
                str(count),
                mebibytes(size),
                str(last.packages_after),
                mebibytes(last.bytes_after),
            )
        )
    noun = "PKGS" if packages == "deb" else "RPMS"
    headers = ("PROCEDURE NAME", "TIME", f"+/- {noun}", "+/- SIZE", noun, "SIZE")
    return Table(headers, rows, [RIGHT] * 6, rule=True, width=8, first_width=23)


def addon_table(addons: Iterable[AddonResult], packages: str) -> Table:
    """The add-ons of a create: what each took, the packages it adds and takes away, and what it holds."""
    rows = [
        (
            addon.name,
            f"{round(addon.seconds)}s",
            f"+{addon.packages_added} -{addon.packages_removed}",
            short_size(addon.bytes),
            str(addon.paths),
            str(addon.removed),
        )
        for addon in addons
    ]
    noun = "PKGS" if packages == "deb" else "RPMS"
    headers = ("ADD-ON NAME", "TIME", f"+/- {noun}", "SIZE", "PATHS", "REMOVED")
    return Table(headers, rows, [RIGHT] * 6, rule=True, width=8, first_width=23)

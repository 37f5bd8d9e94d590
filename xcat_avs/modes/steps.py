"""steps: what a create would run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xcat_avs.build import building
from xcat_avs.build.job import BuildJob
from xcat_avs.build.plan import Action
from xcat_avs.errors import UsageError
from xcat_avs.modes import Mode
from xcat_avs.recipes.files import homes
from xcat_avs.recipes.recipe import Recipe, Step, option_text
from xcat_avs.report import LEFT, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site, lending


def run(request: Request, site: Site) -> Report:
    if request.source and not request.resume:
        raise UsageError("--from is a part of what -b compares; give -b as well")
    image = site.image(request)
    recipe = site.recipe(image)
    if request.base:
        recipe = replace(recipe, addons=())
    document: dict[str, Any] = {
        "osimage": image.name,
        "recipes": [str(path) for path in recipe.files],
        "steps": [_document(step) for step in recipe.steps],
        "addons": [_document(addon) for addon in recipe.addons],
    }
    if not request.resume:
        return Report(_listing(recipe, site, request.verbose), document)
    job = BuildJob.of(image, recipe, site.definitions, request.source, site.progress)
    job = replace(job, paths=replace(job.paths, tree=lending.tree(site, image)))
    plan = building.planned(job, resume=True)
    planned: dict[str, Sequence[Action[Any]]] = {"steps": plan.steps, "addons": plan.addons}
    for name, actions in planned.items():
        for item, action in zip(document[name], actions):
            item.update(action=action.kind, reason=action.reason)
    blocks: list[object] = [_plan_table("STEP", plan.steps)]
    if plan.addons:
        blocks.append(_plan_table("ADD-ON", plan.addons))
    return Report(blocks, document)


def _listing(recipe: Recipe, site: Site, paths: bool) -> list[object]:
    """Steps, add-ons, options and recipes. paths: where their files are as well."""
    blocks: list[object] = [_table("STEP", recipe.steps, recipe, paths)]
    if recipe.addons:
        blocks.append(_table("ADD-ON", recipe.addons, recipe, paths))
    options = [
        (step.name, name, option_text(value), step.procedure.options[name].help)
        for step in (*recipe.steps, *recipe.addons)
        for name, value in sorted(step.options.items())
    ]
    if options:
        headers = ("STEP", "OPTION", "VALUE", "MEANING")
        blocks.append(Table(headers, options, [LEFT] * 4, folded=True))
    names = [str(path) if paths else _recipe_name(path, site) for path in recipe.files]
    numbered = [f"  {number}  {name}" for number, name in enumerate(names, 1)]
    return [*blocks, as_lines(["Recipes, the last one wins:", *numbered])]


def _table(title: str, steps: Sequence[Step], recipe: Recipe, paths: bool) -> Table:
    """What is run: the layer that it comes from, and the number of the recipe that names it."""
    headers, rows = (title, "LAYER", "RECIPE", "DESCRIPTION"), []
    for step in steps:
        number = str(recipe.files.index(step.recipe) + 1) if step.recipe in recipe.files else ""
        rows.append((step.name, step.procedure.layer, number, step.procedure.doc))
    if not paths:
        return Table(headers, rows, [LEFT] * 4, folded=True)
    files = [str(step.procedure.path) for step in steps]
    return Table((*headers, "FILE"), [(*row, file) for row, file in zip(rows, files)], [LEFT] * 5)


def _plan_table(title: str, actions: Sequence[Action[Any]]) -> Table:
    """What create -b would do."""
    headers, rows = (title, "ACTION", "REASON"), [(action.step.name, action.kind, action.reason) for action in actions]
    return Table(headers, rows, [LEFT] * 3, folded=True)


def _recipe_name(path: Path, site: Site) -> str:
    """`shipped NAME`, or the path below INSTALLDIR/custom/avs."""
    shipped, own = homes(site.definitions.installdir)
    if path.parent == shipped:
        return f"shipped {path.name}"
    return f"site {path.name}" if path.parent == own else f"image {path.relative_to(own.parent / 'images')}"


def _document(step: Step) -> dict[str, Any]:
    found = step.procedure
    return {"name": step.name, "layer": found.layer, "file": str(found.path), "doc": found.doc, "options": dict(step.options),
            "overrides": str(found.overridden.path) if found.overridden else "", "recipe": str(step.recipe or "")}  # fmt: skip


MODE = Mode(
    "steps", run,
    {
        "resume": "what create -b would skip and run again, and why", "source": "with -b: the DIR that create is given",
    },
)  # fmt: skip

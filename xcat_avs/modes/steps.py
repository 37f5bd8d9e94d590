"""steps: what a create would run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xcat_avs.modes import Mode
from xcat_avs.recipes.recipe import Recipe, Step, option_text
from xcat_avs.report import LEFT, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    recipe = site.recipe(image)
    blocks: list[object] = [_table("STEP", recipe.steps, recipe)]
    if recipe.addons:
        blocks.append(_table("ADD-ON", recipe.addons, recipe))
    options = [
        (step.name, name, option_text(value), step.procedure.options[name].help)
        for step in (*recipe.steps, *recipe.addons)
        for name, value in sorted(step.options.items())
    ]
    if options:
        blocks.append(Table(("STEP", "OPTION", "VALUE", "MEANING"), options, [LEFT] * 4))
    numbered = [f"  {number}  {path}" for number, path in enumerate(recipe.files, 1)]
    blocks.append(as_lines(["Recipes, the last one wins:", *numbered]))
    document = {
        "osimage": image.name,
        "recipes": [str(path) for path in recipe.files],
        "steps": [_document(step) for step in recipe.steps],
        "addons": [_document(addon) for addon in recipe.addons],
    }
    return Report(blocks, document)


def _table(title: str, steps: Sequence[Step], recipe: Recipe) -> Table:
    """What is run: the layer and file it comes from, and the number of the recipe that names it."""
    rows = []
    for step in steps:
        number = str(recipe.files.index(step.recipe) + 1) if step.recipe in recipe.files else ""
        rows.append((step.name, step.procedure.layer, number, str(step.procedure.path), step.procedure.doc))
    return Table((title, "LAYER", "RECIPE", "FILE", "DESCRIPTION"), rows, [LEFT] * 5)


def _document(step: Step) -> dict[str, Any]:
    found = step.procedure
    return {"name": step.name, "layer": found.layer, "file": str(found.path), "doc": found.doc, "options": dict(step.options),
            "overrides": str(found.overridden.path) if found.overridden else "", "recipe": str(step.recipe or "")}  # fmt: skip


MODE = Mode("steps", "list the procedures and add-ons that a create would run, each with its file", run)

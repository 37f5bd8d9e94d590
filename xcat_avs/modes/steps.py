"""steps: what a create would run, and why."""

from __future__ import annotations

from xcat_avs.modes import Mode
from xcat_avs.recipe import option_text
from xcat_avs.report import LEFT, Report, Table
from xcat_avs.request import Request
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    recipe = site.recipe(image)
    rows, documents = [], []
    for step in recipe.steps:
        found = step.procedure
        rows.append((step.name, found.layer, str(found.path), found.doc))
        documents.append({"name": step.name, "layer": found.layer, "file": str(found.path), "doc": found.doc, "options": dict(step.options),
                          "overrides": str(found.overridden.path) if found.overridden else ""})  # fmt: skip
    blocks: list[object] = [Table(("STEP", "LAYER", "FILE", "DESCRIPTION"), rows, [LEFT] * 4)]
    options = [
        (step.name, name, option_text(value), step.procedure.options[name].help)
        for step in recipe.steps
        for name, value in sorted(step.options.items())
    ]
    if options:
        blocks.append(Table(("STEP", "OPTION", "VALUE", "MEANING"), options, [LEFT] * 4))
    blocks.append("\n".join(["Recipe, the last one wins:", *("  " + str(path) for path in recipe.files)]))
    return Report(blocks, {"osimage": image.name, "recipes": [str(path) for path in recipe.files], "steps": documents})


MODE = Mode("steps", "list the procedures that a create would run, each with its file", run, {})

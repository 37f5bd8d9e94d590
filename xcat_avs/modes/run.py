"""run: a command, or a shell, in a version that it cannot change."""

from __future__ import annotations

from functools import partial

from xcat_avs.build import trial
from xcat_avs.modes import Mode
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.site.lending import last_build
from xcat_avs.store.tags import find_version
from xcat_avs.store.trees import checkout_tree
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import throwaway
from xcat_avs.tree.inside import ROOT


def run(request: Request, site: Site) -> Report:
    image, store = site.image(request), site.store()
    version, number = find_version(request.tag, request.revision, store, image)
    runs = site.private(site.settings.state) / "runs"
    with site.checkout(image) as checkout, own_directory(runs, f"{image.name}.") as own:
        site.progress.begin(f"checking out {version}")
        try:
            build = partial(last_build, site, image, checkout)
            stored = checkout_tree(store, image, version, checkout, site.progress.warn, build)
        finally:
            site.progress.end()
        with throwaway.copy(checkout, stored, own / "tree", site.runner(), site.progress.verbose) as tree:
            what = f"{image.name} {version}"
            code = trial.enter(tree / ROOT, what, request.command, site.progress, apart=request.json)
    document = {
        "osimage": image.name,
        "tag": version.tag,
        "revision": number,
        "command": [*request.command],
        "exit": code,
    }
    return Report(document=document, code=code, data=b"")


MODE = Mode(
    "run", run,
    {"tag": "the tag to run it in", "revision": "the revision to run it in (default: the newest)"},
    private=True, command="[-- COMMAND...]",
)  # fmt: skip

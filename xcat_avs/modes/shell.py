"""shell: a shell where a build failed."""

from __future__ import annotations

from dataclasses import asdict

from xcat_avs.build import markers
from xcat_avs.build.shell import Scene
from xcat_avs.modes import Mode
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    image = site.own_image(request)
    with site.lock(image, "build"):
        scene = Scene.of(image, site.recipe(image), site.definitions.installdir)
        again = markers.again(scene.paths, image.name)
        code = scene.enter(site.progress, request.json)
    failed = scene.failure
    document = {"osimage": image.name, **asdict(failed), "log": str(failed.log), "exit": code, "next": again}
    return Report([as_lines([f"Next: {again}"])], document)


MODE = Mode("shell", run, private=True)

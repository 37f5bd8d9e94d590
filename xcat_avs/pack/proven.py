"""Whether a tag has booted, where nothing else is served."""

from __future__ import annotations

import shlex

from xcat_avs.clock import local
from xcat_avs.errors import AvsError
from xcat_avs.pack.job import PackJob
from xcat_avs.pack.packing import Tagged
from xcat_avs.serve import booted
from xcat_avs.site import Site


def refuse_unbooted(site: Site, job: PackJob, tagged: Tagged, archive: str = "") -> None:
    """Raise AvsError for a tag that did not boot when it was last tried, in the form that is packed, where it has to.

    archive: that form; "" before it is known, where one form that has booted will do.
    """
    if not job.boot_required:
        return
    found = [
        boot
        for boot in booted.of_tag(booted.read(site.settings.state, tagged.image.name), tagged.tag)
        if archive in ("", boot.archive)
    ]
    if any(boot.well for boot in found):
        return
    image, tag, target = tagged.image.name, tagged.tag.name, job.target.image
    said = (
        f"did not boot when it was tried ({found[-1].words(local(found[-1].date))})" if found else "has not booted yet"
    )
    form = f" as {archive}" if archive else ""
    words = shlex.join(
        ["avsimage", "-c", "boot", image, "-t", tag, *(["-x", target.name] if target.name != image else [])]
    )
    raise AvsError(
        f"{image}: tag {tag} {said}{form}, and {target.name} serves only what has ([pack] require_boot); nothing was published. `{words}` tries it"
    )

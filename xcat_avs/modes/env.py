"""env: the image's settings for shell scripts."""

from __future__ import annotations

import shlex

from xcat_avs.modes import Mode
from xcat_avs.report import Raw, Report
from xcat_avs.request import Request
from xcat_avs.site import Site, lending


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    settings, definitions = site.settings, site.definitions
    values = {
        "FSVS_REPOSITORY": site.store(recognize=False).url(image),
        "AVS_OSIMAGE": image.name,
        "AVS_OSVERS": image.osvers,
        "AVS_ARCH": image.osarch,
        "AVS_PROFILE": image.profile,
        "AVS_ROOTIMGDIR": str(site.target(image).rootimgdir),
        "AVS_BUILD": str(lending.tree(site, image)),
        "AVS_LOGS": str(settings.logs / image.name),
        "AVS_STORE": settings.store,
        "AVS_INSTALLDIR": str(definitions.installdir),
        "AVS_TFTPDIR": str(definitions.tftpdir),
        "AVS_DEFINITIONS": definitions.describe(),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return Report([Raw("\n".join(lines))], values)


MODE = Mode("env", run)

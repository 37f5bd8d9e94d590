"""What the store benchmark does through xcat_avs, each in a process of its own so that all it costs is counted.

`worker.py ACTION ARGUMENT...` with AVS_CONF and PYTHONPATH set; answers with one line of JSON.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Only this file knows how the modes call the store.


def _opened(profile: str) -> tuple[Any, Any]:
    """The installation and the osimage, in a private namespace."""
    from xcat_avs.request import Request
    from xcat_avs.site import Site
    from xcat_avs.system import mounts
    from xcat_avs.system.progress import Progress

    request = Request(image=profile)
    site = Site.open(request, Progress(sys.stderr, False))
    code = mounts.enter_private_namespace()
    if code is not None:
        sys.exit(code)
    return site, site.image(request)


def commit(profile: str, tree: str, author: str, message: str) -> dict[str, Any]:
    """What create does with the tree that it built."""
    from xcat_avs.store.trees import commit_tree

    site, image = _opened(profile)
    (Path(tree) / "build_info").mkdir(exist_ok=True)
    revision, new = commit_tree(site.store(), image, Path(tree), author, message, site.progress.warn)
    return {"revision": revision.number, "new": new}


def checkout(profile: str, tag: str, target: str) -> dict[str, Any]:
    """A tag's tree from nothing, proven."""
    from xcat_avs.store.protocol import Version
    from xcat_avs.store.trees import checkout_tree

    site, image = _opened(profile)
    found = checkout_tree(site.store(), image, Version(tag=tag), Path(target), site.progress.warn)
    return {"entries": len(found)}


def pack_tree(profile: str, tag: str) -> dict[str, Any]:
    """What pack does to get the tree of a tag, proven: from the last build, or the kept tree of another version."""
    from functools import partial

    from xcat_avs.site import lending
    from xcat_avs.store.protocol import Version
    from xcat_avs.store.trees import checkout_tree

    site, image = _opened(profile)
    with site.checkout(image) as target:
        build = partial(lending.last_build, site, image, target)
        found = checkout_tree(site.store(), image, Version(tag=tag), target, site.progress.warn, build)
    return {"entries": len(found)}


def manifest(tree: str, target: str) -> dict[str, Any]:
    """The manifest of a tree, written to a file."""
    from xcat_avs.tree import manifest, scan

    found = scan.scan(tree)
    with open(target, "w", encoding="ascii") as stream:
        stream.writelines(manifest.lines(found))
    return {"entries": len(found)}


def sources(work: str) -> dict[str, Any]:
    """Where mmdebstrap gets packages on this machine: as the generator of Debian images finds it."""
    from xcat_avs.definitions.osimage import OsImage
    from xcat_avs.generate import SOURCE_DATE_EPOCH, aptsources

    image = OsImage(f"debian12-{platform.machine()}-netboot-benchmark", {}, "the benchmark")
    found = aptsources.sources(image, Path(work))
    settings = list(aptsources.network_settings())
    return {"suite": aptsources.codename(image), "sources": found, "settings": settings, "epoch": SOURCE_DATE_EPOCH}


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "commit": commit, "checkout": checkout, "pack_tree": pack_tree, "manifest": manifest, "sources": sources,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))

"""The tree of the last build of an osimage, which becomes the kept checkout, and is a build again where it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.site import Site
from xcat_avs.store import kept
from xcat_avs.system.locks import Busy


def _build(site: Site, image: OsImage) -> Path:
    return site.settings.state / "builds" / image.name / "tree"


@contextmanager
def last_build(site: Site, image: OsImage, checkout: Path) -> Iterator[Optional[Path]]:
    """Yield the tree of the last build, which may be moved to the checkout that is kept.

    None while a build runs, and where another run has the kept checkout, for the own one of this run is removed.
    """
    with ExitStack() as stack:
        try:
            if checkout != site.kept_checkout(image):
                raise Busy(f"the checkout of {image.name} is used")
            stack.enter_context(site.lock(image, "build"))
        except Busy:
            yield None
            return
        yield _build(site, image)


def tree(site: Site, image: OsImage) -> Path:
    """Where the tree of the last build is, to look at it."""
    build, checkout = _build(site, image), site.kept_checkout(image)
    return checkout if kept.lent(build, checkout) else build


def take_back(site: Site, image: OsImage) -> None:
    """Have the tree of the last build in its place again. Raises AvsError while a run reads it as a checkout."""
    build, checkout = _build(site, image), site.kept_checkout(image)
    if not kept.lent(build, checkout):
        return
    with site.checkout(image) as free:
        if free != checkout:
            raise AvsError(
                f"{image.name}: the tree that -b resumes is being packed or verified; try again when that is done, or begin "
                "anew without -b"
            )
        kept.give_back(build, checkout)

"""Give an image another package repository for a single installation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import aptsources
from xcat_avs.system import mounts
from xcat_avs.system.descent import write_file
from xcat_avs.tree.inside import inside

LIST = "etc/apt/sources.list.d/avs-lent.list"
POINT = ".avs-lent"  # where a directory of this machine is mounted in an image of debs


@contextmanager
def repository(image: OsImage, root: Path, where: str) -> Iterator[OsImage]:
    """Yield the definition with one more repository; nothing of that stays in the image.

    where: a URL or a directory; for debs also `URL SUITE COMPONENT...`, or a whole line of sources.list. "" for none.
    Raises AvsError for a directory that is no repository.
    """
    if not where:
        yield image
    elif image.version.packages == "deb":
        with _apt(image, root, where):
            yield image
    else:
        if "://" not in where and not (Path(where) / "repodata/repomd.xml").is_file():
            raise AvsError(f"{where} is no repository of rpms: it has no repodata/repomd.xml; run createrepo_c there")
        others = [item for item in (image.attributes.get("otherpkgdir", ""), where) if item]
        yield dataclasses.replace(image, attributes={**image.attributes, "otherpkgdir": ",".join(others)})


@contextmanager
def _apt(image: OsImage, root: Path, where: str) -> Iterator[None]:
    """A source of apt in the image; a directory of this machine is mounted there, read-only."""
    status = root.stat()
    source = inside(root, LIST)
    with ExitStack() as stack:
        line = where if where.startswith("deb ") else aptsources.line(image, where)
        if where.startswith("/"):
            directory = where.split(maxsplit=1)[0]
            point = root / POINT
            point.mkdir(mode=0o755)
            stack.callback(os.utime, root, ns=(status.st_atime_ns, status.st_mtime_ns))
            stack.callback(point.rmdir)
            stack.enter_context(mounts.bind(Path(directory), point, readonly=True))
            line = line.replace(f"copy:{directory}", f"file:/{POINT}")
        write_file(str(root), str(source.relative_to(root)), f"{line}\n".encode())
        stack.callback(source.unlink)
        yield

"""What a version says of itself, read from the store without a checkout: its files, definition and packages."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from xcat_avs.definitions import stanza
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.store.carried import CARRIED
from xcat_avs.store.protocol import Store, Version
from xcat_avs.store.trees import INPUTS, stored_manifest
from xcat_avs.system import mounts
from xcat_avs.tree import packages, scan
from xcat_avs.tree.manifest import Manifest
from xcat_avs.tree.packages import PackageList

STANZA = f"{INPUTS}/osimage.stanza"


def whole_manifest(store: Store, image: OsImage, version: Version) -> Manifest:
    """The manifest of a version that is known to have one. Raises AvsError."""
    found = stored_manifest(store, image, version)
    if found is None:
        raise AvsError(f"{image.name}: {version} has lost its manifest, which its revision of trunk has")
    return found


def read(store: Store, image: OsImage, version: Version, path: str) -> Optional[bytes]:
    """A file of a version, None where it has none."""
    try:
        return store.read(image, version, path)
    except NotFoundError:
        return None


def file(store: Store, image: OsImage, version: Version, path: str) -> Optional[bytes]:
    """A file of a version, also where FSVS cannot store its name."""
    data = read(store, image, version, path)
    entry = None if data is not None else (stored_manifest(store, image, version) or {}).get(path)
    if entry is not None and entry.type == "file":
        data = read(store, image, version, f"{CARRIED}/{entry.sha256}")
    return data


def attributes(store: Store, image: OsImage, version: Version) -> dict[str, str]:
    """The attributes of the definition that a version was built from; none where it does not say."""
    data = read(store, image, version, STANZA) or b""
    images = stanza.parse(data.decode("utf-8", "replace"), f"{image.name}, {STANZA} of {version}")
    return {key: value for found in images.values() for key, value in found.attributes.items()}


def package_list(store: Store, image: OsImage, version: Version, listed: bool) -> PackageList:
    """The packages of a version: as it lists them, else by the database in it. listed: its list can be its own."""
    data = read(store, image, version, packages.STORED) if listed else None
    if data is not None:
        origin = f"{image.name}, {packages.STORED} of {version}"
        return packages.load(data.decode("utf-8", "replace"), origin)
    data = read(store, image, version, f"rootimg/{packages.DPKG_STATUS}")
    if data is not None:
        return packages.parse_status(data.decode("utf-8", "replace"))
    with _rpm_database(store, image, version) as root:
        try:
            return packages.read(root)
        except AvsError as err:
            hint = "; --files compares only the files"
            raise err.prefixed(f"{image.name}: the packages of {version} cannot be read: ", hint) from None


def package_sizes(store: Store, image: OsImage, version: Version) -> dict[tuple[str, str], int]:
    """Name and architecture of each package of a version -> its bytes, by the database in it."""
    data = read(store, image, version, f"rootimg/{packages.DPKG_STATUS}")
    if data is not None:
        return packages.status_sizes(data.decode("utf-8", "replace"))
    with _rpm_database(store, image, version) as root:
        return packages.rpm_sizes(root)


@contextmanager
def _rpm_database(store: Store, image: OsImage, version: Version) -> Iterator[Path]:
    """A root that holds nothing but the rpm database of a version; nothing where it has none."""
    with mounts.temporary_directory() as root:
        for directory in packages.RPM_DATABASES:
            (root / directory).parent.mkdir(parents=True, exist_ok=True)
            try:
                store.export_directory(image, version, f"rootimg/{directory}", root / directory)
            except NotFoundError:
                continue
        _keep_within(root)
        yield root


def _keep_within(root: Path) -> None:
    """Remove links of an exported part of an image that lead out of it: rpm would read what is there."""
    for path, status in scan.walk(str(root)):
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            real = os.path.realpath(root / path)
            if not stat.S_ISLNK(status.st_mode) or not real.startswith(f"{os.path.realpath(root)}/"):
                (root / path).unlink()

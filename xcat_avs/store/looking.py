"""Look into a version without a checkout: its paths, and what is in one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store.carried import CARRIED, carried
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.tags import find_version
from xcat_avs.store.trees import stored_manifest
from xcat_avs.tree.inside import followed, missing, shown
from xcat_avs.tree.manifest import Entry, Manifest

KINDS = {"char": "a device", "block": "a device", "fifo": "a FIFO", "link": "a link"}


@dataclass(frozen=True)
class Sight:
    """A version that is looked into. number: the revision of trunk that it holds.

    manifest: None where it has none of its own, as what avs_image_mgr made.
    """

    store: Store
    image: OsImage
    version: Version
    number: int
    manifest: Optional[Manifest]

    @classmethod
    def of(cls, tag: str, revision: str, store: Store, image: OsImage) -> Sight:
        """The version that -t or -r names. Raises NotFoundError, and DamageError for a damaged manifest."""
        version, number = find_version(tag, revision, store, image)
        # A manifest that an earlier revision brought says nothing of what others have committed since.
        brought = store.brought(image, number, MANIFEST)
        return cls(store, image, version, number, stored_manifest(store, image, version) if brought else None)

    @property
    def name(self) -> str:
        return f"{self.image.name} {self.version}"

    def words(self) -> str:
        """The version as options of a command that is to be typed."""
        return f"{self.image.name} " + (f"-t {self.version.tag}" if self.version.tag else f"-r {self.number}")

    def listed(self) -> Manifest:
        """The manifest. Raises NotFoundError where there is none."""
        if self.manifest is None:
            raise NotFoundError(
                f"{self.name} has no manifest, as what avs_image_mgr made, so its paths are known by a checkout only: "
                f"`avsimage -c checkout {self.words()} DIR`"
            )
        return self.manifest

    def content(self, path: str) -> tuple[str, bytes]:
        """The file at a path of the version, links of the image followed: where it is, and what is in it.

        It is compared with the manifest. Raises NotFoundError for a path that is not there, AvsError for one that
        is no file, and DamageError for one that is not what the manifest says.
        """
        if self.manifest is None or path == MANIFEST:
            return path, self._unlisted(path)
        asked, path = path, followed(self.manifest, path)
        entry = self.manifest.get(path)
        if entry is None:
            by = f", where {shown(asked)!a} leads" if path != asked else ""
            raise NotFoundError(f"{self.name} has no {shown(path)!a}{by}{missing(self.manifest, path)}")
        if entry.type == "dir":
            below = shown(path).rstrip("/")
            ask = f"`avsimage -c files {self.words()} '{below}/*'`"
            raise AvsError(f"{self.name}: {shown(path)!a} is a directory; {ask} lists what is in it")
        if entry.type != "file":
            raise AvsError(f"{self.name}: {shown(path)!a} is {KINDS[entry.type]}, and has no contents")
        return path, self._proven(path, entry, self.manifest)

    def _unlisted(self, path: str) -> bytes:
        try:
            return self.store.read(self.image, self.version, path)
        except NotFoundError:
            raise NotFoundError(
                f"{self.name} has no {shown(path)!a}; what is in the image begins with /, and what is beside it has names "
                "such as kernel and build_info/report"
            ) from None

    def _proven(self, path: str, entry: Entry, found: Mapping[str, Entry]) -> bytes:
        where = path
        if _aside(path, found):
            # The first name of a file with several may be one that the store can hold.
            where = (
                entry.hardlink if entry.hardlink and not _aside(entry.hardlink, found) else f"{CARRIED}/{entry.sha256}"
            )
        advice = "; another tag or revision may have it whole"
        if self.version.tag:
            advice += f", and `avsimage -c verify {self.words()}` looks at all of this one"
        try:
            data = self.store.read(self.image, self.version, where)
        except NotFoundError:
            raise DamageError(
                f"{self.name}: the store has lost {shown(path)!a}, which the manifest names{advice}"
            ) from None
        except DamageError as err:
            raise err.prefixed(f"{self.name}: {shown(path)!a} cannot be read: ", advice) from None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise DamageError(
                f"{self.name}: {shown(path)!a} is damaged in the store: it is not what the manifest says{advice}"
            )
        return data


def _aside(path: str, found: Mapping[str, Entry]) -> bool:
    """Whether the store cannot hold a path under its own name."""
    parts = path.split("/")
    way = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return path in carried({name: found[name] for name in way})

"""From a tag to what nodes boot: check out, prove, archive, check, publish."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xcat_avs import command, generate, mounts, restore, xcat
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.image import OsImage, Tag
from xcat_avs.manifest import SELINUX, Manifest
from xcat_avs.pack import addons, archive, contents, packimage, publish
from xcat_avs.pack.archive import Form
from xcat_avs.pack.publish import PackedSet
from xcat_avs.progress import Progress
from xcat_avs.report import utc_now
from xcat_avs.store import Store, Version
from xcat_avs.store.trees import MANIFEST, checkout_tree

RELEASE = "etc/avs-release"
XCATINFO = "opt/xcat/xcatinfo"
INITRDS = (generate.INITRD, "initrd-statelite.gz")


def own_form(method: str, compress: str) -> Form:
    """What our own packer makes of what was asked for."""
    return Form("cpio" if method == "auto" else method, {"auto": "gzip", "pigz": "gzip"}.get(compress, compress))


@dataclass(frozen=True)
class Packing:
    """One pack: a tag of source, served as target at rootimgdir.

    packer: `packimage` or `own`. method, compress: as asked for; `auto` leaves it to the packer.
    checkout: a directory for the tag as it is in the store, kept, and only compared where it is there already.
    staging: a private directory, on disk and not served, that is emptied before and removed after.
    log: a file for what the programs say.
    """

    store: Store
    source: OsImage
    tag: Tag
    target: OsImage
    rootimgdir: Path
    packer: str
    method: str
    compress: str
    checkout: Path
    staging: Path
    log: Path
    user: str
    progress: Progress
    reserved: frozenset[Path]  # directories that other osimages are served from
    timeout: float = 0

    def programs(self) -> tuple[str, ...]:
        own = own_form(self.method, self.compress)
        return (xcat.need("packimage"),) if self.packer == "packimage" else own.programs()

    def inputs(self) -> str:
        """A hash of what decides, besides the tag, how the archive comes out."""
        sha = hashlib.sha256(f"{self.packer}\0{self.method}\0{self.compress}\0{self.target.stanza()}".encode())
        sha.update(repr(archive.read_exlist(self.target.paths("exlist"))).encode())  # with what they include
        for path in sorted(self.target.named_files()):
            sha.update(path.read_bytes())
        return sha.hexdigest()

    def served_already(self) -> bool:
        """Whether just this is what is served, and all of it is still there."""
        record = publish.read_record(self.rootimgdir)
        if record is None or not self.rootimgdir.is_symlink():
            return False
        wanted = (self.target.name, self.source.name, self.tag.name, self.tag.source, self.inputs())
        if (record.osimage, record.source, record.tag, record.revision, record.inputs) != wanted:
            return False
        if record.version not in ("", self.version):  # records of old do not say what the tag was
            return False
        return not contents.changes(self.rootimgdir, record.files, sums=True)

    @cached_property
    def version(self) -> str:
        """A hash of what the tag is: a store that was restored, or a tag made anew, may have the same names and numbers."""
        try:
            text = self.store.read(self.source, Version(tag=self.tag.name), MANIFEST)
        except NotFoundError:
            text = repr(self.tag).encode()  # of avs_image_mgr: who made it, and when, to the microsecond
        return hashlib.sha256(text).hexdigest()

    def facts(self) -> dict[str, str]:
        """What the image says of itself; the date is the tag's, so that packing again gives the same bytes."""
        return {
            "AVS_OSIMAGE": self.target.name,
            "AVS_SOURCE": self.source.name,
            "AVS_TAG": self.tag.name,
            "AVS_REVISION": str(self.tag.source),
            "AVS_DATE": self.tag.date.split(".")[0].rstrip("Z") + "Z",
        }

    def run(self) -> tuple[PackedSet, str, str]:
        """Pack and serve. Returns what was published, the name of the set, and where a real directory found there went, or "".

        Raises AvsError; what is served is then as it was.
        """
        for program in self.programs():
            command.need(program)
        mounts.remove_tree(self.staging)
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.write_bytes(b"")
        try:
            # First the place: where nothing can be published, nothing is checked out.
            with ExitStack() as stack:
                new = stack.enter_context(publish.new_set(self.rootimgdir))
                self.progress.begin(f"checking out {self.tag.name}")
                version = Version(tag=self.tag.name)
                stored = checkout_tree(self.store, self.source, version, self.checkout, self.progress.warn)
                # What packing changes in a tree, the checkout does not see.
                tree = stack.enter_context(mounts.overlay(self.checkout, self.staging / "overlay"))
                self.progress.begin(f"packing {self.tag.name}")
                archive_name = self._archive(tree, stored, new)
                self._kernel(tree, new)
                self._addons(tree, new)
                files = publish.describe_files(new)
                record = PackedSet(
                    self.target.name, self.source.name, self.tag.name, self.tag.source, utc_now(), self.user, archive_name,
                    self.inputs(), files, self.version,
                )  # fmt: skip
                name, moved = publish.publish(new, self.rootimgdir, record, self.reserved, self.progress.warn)
                return record, name, moved
        finally:
            self.progress.end()
            mounts.remove_tree(self.staging)

    def _archive(self, tree: Path, stored: Manifest, new: Path) -> str:
        """Write the archive into the new set; returns its name."""
        log = self.log
        root = tree / "rootimg"
        if not root.is_dir():
            raise AvsError(f"{self.source.name}: tag {self.tag.name} holds no rootimg")
        with _kept_times(tree, stored):
            self._release(root)
        method = self._method(stored)
        if self.packer == "packimage":
            compress = "" if self.compress == "auto" else self.compress
            made = packimage.write(
                tree, self.target, self.rootimgdir, method, compress, self.facts(), self.staging, log, self.timeout
            )
            shutil.move(str(made), str(new / made.name))
            return made.name
        excluded, included = archive.read_exlist(self.target.paths("exlist"))
        with _kept_times(tree, stored):
            archive.prune(root, excluded, included)
        form = own_form(method or self.method, self.compress)
        archive.write(root, new / form.filename, form, log, self.timeout)
        return form.filename

    def _addons(self, tree: Path, new: Path) -> None:
        for name in addons.foreign(tree):
            self.progress.warn(
                f"{self.source.name}: tag {self.tag.name} holds the add-on {name} as avs_image_mgr stored it; it is not packed"
            )
        addons.write(tree, self.checkout / "rootimg", new, self.facts(), self.log, self.timeout)

    def _method(self, stored: Manifest) -> str:
        """The method asked for; for `auto` tar where the image has what cpio loses, and "" otherwise."""
        rich = [path for path, entry in stored.items() if any(name != SELINUX for name, _ in entry.xattrs)]
        if self.method == "auto":
            return "tar" if rich else ""
        if rich and (self.method == "cpio" or (self.method == "squashfs" and self.packer == "packimage")):
            self.progress.warn(
                f"{self.source.name}: {self.method} loses the capabilities, ACLs and other xattrs of {len(rich)} paths, "
                f"{rich[0]} among them; --method tar keeps them"
            )
        return self.method

    def _release(self, root: Path) -> None:
        """Write /etc/avs-release and /opt/xcat/xcatinfo; packimage writes the latter anew."""
        text = _lines(self.facts())
        for name, content in ((RELEASE, text), (XCATINFO, _lines({"IMAGENAME": self.target.name}) + text)):
            path = root / name
            # Not through a link of the image's to somewhere on this machine.
            real = os.path.realpath(path.parent)
            if real != str(path.parent) and not real.startswith(os.path.realpath(root) + os.sep):
                raise AvsError(f"{self.source.name}: /{os.path.dirname(name)} of the image leads out of it")
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            path.unlink(missing_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
            for made in (path, path.parent, path.parent.parent):
                os.utime(made, (0, 0))

    def _kernel(self, tree: Path, new: Path) -> None:
        for name in (generate.KERNEL, *INITRDS):
            if (tree / name).is_file():
                shutil.copyfile(tree / name, new / name)
            elif name != INITRDS[1]:
                self.progress.warn(
                    f"{self.source.name}: tag {self.tag.name} holds no {name}; nodes cannot boot this image"
                )


def _lines(facts: Mapping[str, str]) -> str:
    return "".join(f"{name}='{value}'\n" for name, value in facts.items())


@contextmanager
def _kept_times(tree: Path, stored: Manifest) -> Iterator[None]:
    """Undo what changes in a checkout do to the times of directories, and so to the bytes of the archive."""
    yield
    left = {path: entry for path, entry in stored.items() if entry.type == "dir" and os.path.lexists(tree / path)}
    restore.restore_times(str(tree), left)

"""From a tag to what nodes boot: check out, prove, archive, check, publish."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xcat_avs import command, generate, kernels, mounts, restore, xcat
from xcat_avs.definitions import exlist
from xcat_avs.errors import AvsError
from xcat_avs.image import OsImage, Tag
from xcat_avs.manifest import Manifest, Xattrs
from xcat_avs.pack import additions, addons, archive, forms, packimage, publish
from xcat_avs.pack.publish import PackedSet
from xcat_avs.progress import Progress
from xcat_avs.report import utc_now
from xcat_avs.store import Store, Version
from xcat_avs.store.trees import checkout_tree

INITRDS = (kernels.INITRD, "initrd-statelite.gz")


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
    xcat_initrd: bool = True  # whether nodes boot by it; else the kernel unpacks the archive

    def programs(self) -> tuple[str, ...]:
        own = forms.own(self.method, self.compress)
        return (xcat.need("packimage"),) if self.packer == "packimage" else own.programs()

    def inputs(self) -> str:
        """A hash of what decides, besides the tag, how the archive comes out."""
        sha = hashlib.sha256(f"{self.packer}\0{self.method}\0{self.compress}\0{self.target.stanza()}".encode())
        sha.update(repr(patterns(self.target, self.packer)).encode())  # with what they include
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
        present = publish.describe_files(self.rootimgdir)
        return {name: facts for name, facts in present.items() if name != publish.RECORD} == record.files

    def facts(self) -> dict[str, str]:
        """What the image says of itself; the date is the tag's, so that packing again gives the same bytes."""
        return {
            "AVS_OSIMAGE": self.target.name,
            "AVS_SOURCE": self.source.name,
            "AVS_TAG": self.tag.name,
            "AVS_REVISION": str(self.tag.source),
            "AVS_DATE": self.tag.date.split(".")[0].rstrip("Z") + "Z",
        }

    def run(self) -> tuple[PackedSet, Path, str]:
        """Pack and serve. Returns what was published, its directory, and where a real one found there went, or "".

        Raises AvsError; what is served is then as it was.
        """
        for program in self.programs():
            command.need(program)
        mounts.remove_tree(self.staging)
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.write_bytes(b"")
        try:
            self.progress.begin(f"checking out {self.tag.name}")
            version = Version(tag=self.tag.name)
            stored = checkout_tree(self.store, self.source, version, self.checkout, self.progress.warn)
            # What packing changes in a tree, the checkout does not see.
            with (
                mounts.overlay(self.checkout, self.staging / "overlay") as tree,
                publish.new_set(self.rootimgdir) as new,
            ):
                moved = publish.finish_interrupted(self.rootimgdir)
                self.progress.begin(f"packing {self.tag.name}")
                name = self._archive(tree, stored, new)
                self._kernel(tree, new)
                self._addons(tree, new)
                files = publish.describe_files(new)
                record = PackedSet(
                    self.target.name,
                    self.source.name,
                    self.tag.name,
                    self.tag.source,
                    utc_now(),
                    self.user,
                    name,
                    self.inputs(),
                    files,
                )
                final, moved_now = publish.publish(new, self.rootimgdir, record, self.reserved)
                return record, final, moved_now or moved
        finally:
            self.progress.end()
            mounts.remove_tree(self.staging)

    def _archive(self, tree: Path, stored: Manifest, new: Path) -> str:
        """Write the archive into the new set; returns its name."""
        log = self.log
        root = tree / "rootimg"
        if "rootimg" not in stored:
            raise AvsError(f"{self.source.name}: tag {self.tag.name} holds no rootimg")
        with _kept_times(tree, stored):
            additions.release(root, self.facts(), self.target.name, self.source.name)
        wanted = additions.rich(stored)
        method = self._method(wanted)
        if self.packer == "packimage":
            compress = "" if self.compress == "auto" else self.compress
            made = packimage.write(
                tree, self.target, self.rootimgdir, method, compress, self.facts(), self.staging, log, self.timeout
            )
            shutil.move(str(made), str(new / made.name))
            return made.name
        excluded, included = patterns(self.target, self.packer)
        with _kept_times(tree, stored):
            exlist.prune(root, excluded, included)
            lost = additions.xattrs_at_boot(root, wanted, self.source.name) if method == "cpio" else []
        if lost:
            hint = "with the package attr (and systemd) in the image they are set at boot; --method tar or squashfs keeps them"
            self._warn_of_loss(method, lost, hint)
        form = forms.own(method, self.compress)
        archive.write(root, new / form.filename, form, log, self.timeout)
        return form.filename

    def _addons(self, tree: Path, new: Path) -> None:
        for name in addons.foreign(tree):
            self.progress.warn(
                f"{self.source.name}: tag {self.tag.name} holds the add-on {name} as avs_image_mgr stored it; it is not packed"
            )
        addons.write(tree, self.checkout / "rootimg", new, self.facts(), self.log, self.timeout)

    def _method(self, wanted: Mapping[str, Xattrs]) -> str:
        """The method, or "" for packimage's own. wanted: what cpio cannot hold."""
        method = forms.choose(self.method, self.packer, self.xcat_initrd, bool(wanted))
        if wanted and self.packer == "packimage" and method in ("cpio", "squashfs"):
            self._warn_of_loss(method, list(wanted), "--method tar keeps them")
        return method

    def _warn_of_loss(self, method: str, paths: Sequence[str], hint: str) -> None:
        self.progress.warn(
            f"{self.source.name}: {method} loses the capabilities, ACLs and other xattrs of {', '.join(paths[:3])}"
            f"{f' and {len(paths) - 3} more paths' if len(paths) > 3 else ''}; {hint}"
        )

    def _kernel(self, tree: Path, new: Path) -> None:
        try:
            kernels.check_modules(tree)
        except AvsError as err:
            raise err.prefixed(f"{self.source.name}, tag {self.tag.name}: ") from None
        for name in (kernels.KERNEL, *INITRDS):
            if os.path.lexists(tree / name):
                restore.copy_content(str(tree / name), str(new / name))  # a regular file, by layout.check
            elif name != INITRDS[1]:
                self.progress.warn(
                    f"{self.source.name}: tag {self.tag.name} holds no {name}; nodes cannot boot this image"
                )


def patterns(image: OsImage, packer: str) -> tuple[list[str], list[str]]:
    """What the exlists of an image leave out and take in; packimage puts no variables into the names of lists."""
    variables = {} if packer == "packimage" else generate.variables(image)
    return exlist.read(image.paths("exlist"), variables)


@contextmanager
def _kept_times(tree: Path, stored: Manifest) -> Iterator[None]:
    """Undo what changes in a checkout do to the times of directories, and so to the bytes of the archive."""
    yield
    restore.restore_times(str(tree), {path: entry for path, entry in stored.items() if entry.type == "dir"})

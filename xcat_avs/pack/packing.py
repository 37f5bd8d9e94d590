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

from xcat_avs import generate
from xcat_avs.clock import utc_now
from xcat_avs.definitions import exlist
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.pack import additions, addon_archives, archive, forms, packimage, proof
from xcat_avs.pack.archive import Form
from xcat_avs.serve import contents, publish, sets
from xcat_avs.serve.sets import PackedSet
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.trees import checkout_tree
from xcat_avs.system import command, mounts
from xcat_avs.system.progress import Progress
from xcat_avs.tree import delta, kernels, restore
from xcat_avs.tree.manifest import Entry, Manifest, Xattrs
from xcat_avs.xcat import programs

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
        return (programs.need("packimage"),) if self.packer == "packimage" else own.programs()

    def inputs(self) -> str:
        """A hash of what decides, besides the tag, how the archive comes out."""
        sha = hashlib.sha256(f"{self.packer}\0{self.method}\0{self.compress}\0{self.target.stanza()}".encode())
        sha.update(repr(patterns(self.target, self.packer)).encode())  # with what they include
        for path in sorted(self.target.named_files()):
            sha.update(path.read_bytes())
        return sha.hexdigest()

    def served_already(self) -> bool:
        """Whether just this is what is served, and all of it is still there."""
        record = sets.read_record(self.rootimgdir)
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
                tree = stack.enter_context(self._changeable(stored))
                self.progress.begin(f"packing {self.tag.name}")
                archive_name, by_design = self._archive(tree, stored, new)
                self._kernel(tree, new)
                self._addons(tree, new)
                files = sets.describe_files(new)
                record = PackedSet(
                    osimage=self.target.name, source=self.source.name, tag=self.tag.name, revision=self.tag.source, date=utc_now(),
                    user=self.user, archive=archive_name, inputs=self.inputs(), files=files, version=self.version, by_design=by_design,
                )  # fmt: skip
                name, moved = publish.publish(new, self.rootimgdir, record, self.reserved, self.progress.warn)
                return record, name, moved
        finally:
            self.progress.end()
            mounts.remove_tree(self.staging)

    @contextmanager
    def _changeable(self, stored: Manifest) -> Iterator[Path]:
        """The checkout as a tree in which packing may change things, while the checkout itself stays as it is."""
        hidden = [path for path, entry in stored.items() if _hidden_by_overlay(entry)]
        if not hidden:
            with mounts.overlay(self.checkout, self.staging / "overlay") as tree:
                yield tree
            return
        self.progress.verbose(f"packing a copy of the checkout: an overlay of it would hide {hidden[0]!a}")
        self.staging.mkdir(parents=True, mode=0o700)
        copy = self.staging / "copy"
        command.run(["cp", "-a", "--reflink=auto", "--", str(self.checkout), str(copy)], log=self.log)
        yield copy

    def _archive(self, tree: Path, stored: Manifest, new: Path) -> tuple[str, dict[str, str]]:
        """Write the archive into the new set, proven; returns its name, and what packimage changed by design and why."""
        root = tree / "rootimg"
        if "rootimg" not in stored:
            raise AvsError(f"{self.source.name}: tag {self.tag.name} holds no rootimg")
        wanted, rich = proof.below(stored, "rootimg"), additions.rich(stored)
        excluded, included = patterns(self.target, self.packer)
        with _kept_times(tree, stored):
            served_by_xcat = self.target.name if self.xcat_initrd else ""
            added = additions.release(root, self.facts(), served_by_xcat, self.source.name)
        wanted, _ = proof.look_again(wanted, root, added)
        if self.packer == "packimage":
            kept = proof.chosen(wanted, exlist.select([*wanted], excluded, included))
            return self._packimage(tree, self._form(kept, bool(rich)), wanted, new)
        with _kept_times(tree, stored):
            exlist.prune(root, excluded, included)
        wanted = proof.chosen(wanted, exlist.with_parents([".", *exlist.select([*wanted], excluded, included)]))
        # An initrd of xCAT unpacks every form, so nothing is left to what runs at boot.
        lost = sorted(additions.present(root, rich)) if self.xcat_initrd else additions.lost_at_boot(root, rich)
        form = self._form(wanted, bool(lost))
        with _kept_times(tree, stored):
            added = self._xattrs_at_boot(root, rich) if form.method == "cpio" else []
        wanted, _ = proof.look_again(wanted, root, added)
        archive.write(root, new / form.filename, form, self.log, self.timeout)
        self.progress.begin(f"proving {form.filename}")
        try:
            proof.prove(new / form.filename, form, wanted, self.log, self.timeout)
        except AvsError as err:
            raise err.prefixed(f"{self.target.name}: nothing was published: ") from None
        return form.filename, {}

    def _packimage(self, tree: Path, form: Form, wanted: Manifest, new: Path) -> tuple[str, dict[str, str]]:
        """The same by packimage."""
        compress = "" if self.compress == "auto" else self.compress
        method = "" if self.method == "auto" and form.method == "cpio" else form.method  # its own default
        made = packimage.write(
            tree, self.target, self.rootimgdir, method, compress, self.facts(), self.staging, self.log, self.timeout
        )
        self.progress.begin(f"proving {made.name}")
        by_design = packimage.check(made, self.checkout / "rootimg", wanted, self.target, self.log, self.timeout)
        for path, why in by_design.items():
            self.progress.verbose(f"packimage changed {path!a}: {why}")
        shutil.move(str(made), str(new / made.name))
        return made.name, by_design

    def _addons(self, tree: Path, new: Path) -> None:
        for name in addon_archives.foreign(tree):
            self.progress.warn(
                f"{self.source.name}: tag {self.tag.name} holds the add-on {name} as avs_image_mgr stored it; it is not packed"
            )
        addon_archives.write(tree, self.checkout / "rootimg", new, self.facts(), self.log, self.timeout)

    def _form(self, wanted: Manifest, lossy: bool) -> Form:
        """The form to pack in, and a warning for what it loses. lossy: whether nodes would be without something in cpio."""
        method = forms.choose(self.method, self.packer, lossy)
        form = forms.own(method or "cpio", self.compress)  # of packimage only the method counts; its default is cpio
        own = self.packer == "own"
        if (
            own and form.method == "cpio"
        ):  # what of the attributes is lost is known once it is known what a node sets itself
            wanted = {path: entry._replace(xattrs=()) for path, entry in wanted.items()}
        for text in proof.losses(wanted, form, own):
            self.progress.warn(f"{self.source.name}: {text}")
        try:
            archive.refuse_large(form, wanted.values())
        except AvsError as err:
            raise err.prefixed(f"{self.source.name}, tag {self.tag.name}: ") from None
        return form

    def _xattrs_at_boot(self, root: Path, rich: Mapping[str, Xattrs]) -> list[str]:
        """Have a node set what cpio cannot hold; returns the paths that were added for that."""
        added, lost = additions.xattrs_at_boot(root, rich, self.source.name), additions.lost_at_boot(root, rich)
        if lost:
            more = f" and {len(lost) - 3} more paths" if len(lost) > 3 else ""
            self.progress.warn(
                f"{self.source.name}: cpio loses the capabilities, ACLs and other xattrs of {', '.join(lost[:3])}{more}; with the package "
                "attr (and systemd) in the image they are set at boot; --method tar or squashfs keeps them"
            )
        return added

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
    try:
        return exlist.read(image.paths("exlist"), variables)
    except AvsError as err:
        raise err.prefixed(f"{image.name}: ") from None


def _hidden_by_overlay(entry: Entry) -> bool:
    """Whether an overlay over a tree with this would not show it: the marks that overlays make themselves."""
    return (entry.type == "char" and entry.device == (0, 0)) or any(
        name.startswith(delta.OVERLAY) for name, _ in entry.xattrs
    )


@contextmanager
def _kept_times(tree: Path, stored: Manifest) -> Iterator[None]:
    """Undo what changes in a checkout do to the times of directories, and so to the bytes of the archive."""
    yield
    restore.restore_times(str(tree), {path: entry for path, entry in stored.items() if entry.type == "dir"})

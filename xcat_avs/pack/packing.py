"""From a tag to a set that can be served: check out, prove, archive, check."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Optional

from xcat_avs.clock import utc_now
from xcat_avs.definitions import exlist
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.pack import additions, addon_archives, archive, forms, packimage, proof
from xcat_avs.pack.archive import Form
from xcat_avs.pack.job import PackJob
from xcat_avs.pack.secrets import Gate
from xcat_avs.serve import contents, publish, sets
from xcat_avs.serve.sets import PackedSet
from xcat_avs.site import Site
from xcat_avs.site.lending import last_build
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.trees import Build, checkout_tree, no_build
from xcat_avs.system import mounts
from xcat_avs.tree import kernels, manifest, restore, throwaway
from xcat_avs.tree.manifest import Manifest, Xattrs

INITRDS = (kernels.INITRD, "initrd-statelite.gz")


@dataclass(frozen=True)
class Tagged:
    """A tag of an osimage, and the store that has it."""

    store: Store
    image: OsImage
    tag: Tag

    @cached_property
    def version(self) -> str:
        """A hash of what the tag is: a store that was restored, or a tag made anew, may have the same names and numbers."""
        try:
            text = self.store.read(self.image, Version(tag=self.tag.name), MANIFEST)
        except NotFoundError:
            text = repr(self.tag).encode()  # of avs_image_mgr: who made it, and when, to the microsecond
        return hashlib.sha256(text).hexdigest()

    def refuse_other(self, checkout: Path) -> None:
        """Raise AvsError where what was checked out since is not what `version`, and with it a signature, is about."""
        manifest = checkout / MANIFEST
        if manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() != self.version:
            raise AvsError(
                f"{self.image.name}: tag {self.tag.name} was changed in the store meanwhile; nothing was packed"
            )


class Archived(NamedTuple):
    """The name of an archive, and the paths that packimage changed by design, with the reason."""

    name: str
    by_design: dict[str, str]


@dataclass(frozen=True)
class Packing:
    """One pack. checkout: a directory for the tag as it is in the store, kept, and only compared where it is there already.

    build(): the tree of a build that may become it.
    """

    job: PackJob
    tagged: Tagged
    checkout: Path
    gate: Gate
    build: Build = no_build

    def served_already(self) -> Optional[PackedSet]:
        """The record of what is served, where that is just this, and all of it is still there."""
        job, tagged, rootimgdir = self.job, self.tagged, self.job.target.rootimgdir
        record = sets.read_record(rootimgdir)
        if record is None or not rootimgdir.is_symlink():
            return None
        wanted = (job.target.image.name, tagged.image.name, tagged.tag.name, job.inputs)
        if (record.osimage, record.source, record.tag, record.inputs) != wanted:
            return None
        if record.revision not in (tagged.tag.source, tagged.tag.first):
            return None
        if record.version not in ("", tagged.version):  # records of old do not say what the tag was
            return None
        return None if contents.changes(rootimgdir, record.files, sums=True) else record

    def facts(self) -> dict[str, str]:
        """What the image says of itself; date and revision are the tag's, in whichever store: packing again gives the same bytes."""
        tag = self.tagged.tag
        return {
            "AVS_OSIMAGE": self.job.target.image.name,
            "AVS_SOURCE": self.tagged.image.name,
            "AVS_TAG": tag.name,
            "AVS_REVISION": str(tag.first),
            "AVS_DATE": tag.date.split(".")[0].rstrip("Z") + "Z",
        }

    def pack(self, new: Path) -> PackedSet:
        """Write the archive, the kernel and the add-ons into the new set, and say what it is. Raises AvsError."""
        job = self.job
        inputs = job.inputs  # what is changed in them from now on is for another pack
        mounts.remove_tree(job.staging)
        job.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        job.log.write_bytes(b"")
        try:
            job.progress.begin(f"checking out {self.tagged.tag.name}", "step 1 of 3")
            version = Version(tag=self.tagged.tag.name)
            stored = checkout_tree(
                self.tagged.store, self.tagged.image, version, self.checkout, job.progress.warn, self.build
            )
            self.tagged.refuse_other(self.checkout)
            job.progress.begin("looking for secrets")
            self.gate.look(self.checkout)
            # What packing changes in a tree, the checkout does not see.
            with throwaway.copy(self.checkout, stored, job.staging, job.runner, job.progress.verbose) as tree:
                job.progress.begin(f"packing {self.tagged.tag.name}", "step 2 of 3")
                archived = self._archive(tree, stored, new)
                self._kernel(tree, new)
                self._addons(tree, new)
            return self._record(new, archived, inputs)
        finally:
            job.progress.end()
            mounts.remove_tree(job.staging)

    def _record(self, new: Path, archived: Archived, inputs: str) -> PackedSet:
        job, tagged = self.job, self.tagged
        return PackedSet(
            osimage=job.target.image.name, source=tagged.image.name, tag=tagged.tag.name, revision=tagged.tag.source,
            date=utc_now(), user=job.user, archive=archived.name, inputs=inputs, files=sets.describe_files(new),
            version=tagged.version, by_design=archived.by_design, programs=self._programs(archived, new),
        )  # fmt: skip

    def _programs(self, archived: Archived, new: Path) -> dict[str, str]:
        """The versions of what has written the archives, but for packimage."""
        forms = [Form.of(archived.name)] if self.job.packer == "own" else []
        if (new / addon_archives.DIRECTORY).is_dir():
            forms.append(addon_archives.FORM)
        return {name: text for form in forms for name, text in form.versions(self.job.runner).items()}

    def _archive(self, tree: Path, stored: Manifest, new: Path) -> Archived:
        """Write the archive into the new set, proven."""
        root = tree / "rootimg"
        if "rootimg" not in stored:
            raise AvsError(f"{self.tagged.image.name}: tag {self.tagged.tag.name} holds no rootimg")
        wanted, rich = proof.below(stored, "rootimg"), additions.rich(stored)
        job = self.job
        with _kept_times(tree, stored):
            served_by_xcat = job.target.image.name if job.xcat else ""
            added = additions.release(root, self.facts(), served_by_xcat, self.tagged.image.name)
        wanted, _ = proof.look_again(wanted, root, added)
        excluded, included = job.excluded, job.included
        if job.packer == "packimage":
            kept = proof.chosen(wanted, exlist.select([*wanted], excluded, included))
            return self._packimage(tree, self._form(kept, bool(rich)), wanted, new)
        with _kept_times(tree, stored):
            archive.prune(root, excluded, included)
        wanted = proof.chosen(wanted, exlist.with_parents([".", *exlist.select([*wanted], excluded, included)]))
        # An initrd of xCAT unpacks every form, so nothing is left to what runs at boot.
        lost = sorted(additions.present(root, rich)) if job.xcat else additions.lost_at_boot(root, rich)
        form = self._form(wanted, bool(lost))
        with _kept_times(tree, stored):
            added = self._xattrs_at_boot(root, rich) if form.method == "cpio" else []
        if form.method != "cpio":
            additions.order(root, additions.present(root, rich))
        wanted, _ = proof.look_again(wanted, root, added)
        archive.write(root, new / form.filename, form, self.job.runner, total=manifest.size(wanted))
        self.job.progress.begin(f"proving {form.filename}", "step 3 of 3")
        try:
            proof.prove(new / form.filename, form, wanted, self.job.runner)
        except AvsError as err:
            raise err.prefixed(f"{self.job.target.image.name}: nothing was published: ") from None
        return Archived(form.filename, {})

    def _packimage(self, tree: Path, form: Form, wanted: Manifest, new: Path) -> Archived:
        """The same by packimage."""
        job = self.job
        method = "" if job.method == "auto" and form.method == "cpio" else form.method  # its own default
        made = packimage.write(tree, job, method, self.facts(), manifest.size(wanted))
        job.progress.begin(f"proving {made.name}", "step 3 of 3")
        by_design = packimage.check(made, self.checkout / "rootimg", wanted, job)
        self.gate.put_by_packimage(by_design)
        for path, why in by_design.items():
            job.progress.verbose(f"packimage changed {path!a}: {why}")
        shutil.move(str(made), str(new / made.name))
        return Archived(made.name, by_design)

    def _addons(self, tree: Path, new: Path) -> None:
        for name in addon_archives.foreign(tree):
            self.job.progress.warn(
                f"{self.tagged.image.name}: tag {self.tagged.tag.name} holds the add-on {name} as avs_image_mgr stored it; it is not packed"
            )
        addon_archives.write(tree, self.checkout / "rootimg", new, self.facts(), self.job.runner)

    def _form(self, wanted: Manifest, lossy: bool) -> Form:
        """The form to pack in, and a warning for what it loses. lossy: whether nodes would be without something in cpio."""
        method = forms.choose(self.job.method, self.job.packer, lossy)
        # Of packimage only the method counts; its default is cpio.
        form = forms.own(method or "cpio", self.job.compress)
        own = self.job.packer == "own"
        # What of the attributes is lost is known once it is known what a node sets itself.
        if own and form.method == "cpio":
            wanted = {path: entry._replace(xattrs=()) for path, entry in wanted.items()}
        for text in proof.losses(wanted, form, own):
            self.job.progress.warn(f"{self.tagged.image.name}: {text}")
        try:
            archive.refuse_large(form, wanted.values())
        except AvsError as err:
            raise err.prefixed(f"{self.tagged.image.name}, tag {self.tagged.tag.name}: ") from None
        return form

    def _xattrs_at_boot(self, root: Path, rich: Mapping[str, Xattrs]) -> list[str]:
        """Have a node set what cpio cannot hold; returns the paths that were added for that."""
        added = additions.xattrs_at_boot(root, rich, self.tagged.image.name)
        lost = additions.lost_at_boot(root, rich)
        if lost:
            more = f" and {len(lost) - 3} more paths" if len(lost) > 3 else ""
            self.job.progress.warn(
                f"{self.tagged.image.name}: cpio loses the capabilities, ACLs and other xattrs of {', '.join(lost[:3])}{more}; with the package "
                "attr (and systemd) in the image they are set at boot; --method tar or squashfs keeps them"
            )
        return added

    def _kernel(self, tree: Path, new: Path) -> None:
        try:
            kernels.check_modules(tree)
        except AvsError as err:
            raise err.prefixed(f"{self.tagged.image.name}, tag {self.tagged.tag.name}: ") from None
        for name in (kernels.KERNEL, *INITRDS):
            if os.path.lexists(tree / name):
                restore.copy_content(str(tree / name), str(new / name))  # a regular file, by layout.check
            elif name != INITRDS[1]:
                self.job.progress.warn(
                    f"{self.tagged.image.name}: tag {self.tagged.tag.name} holds no {name}; nodes cannot boot this image"
                )


@contextmanager
def _kept_times(tree: Path, stored: Manifest) -> Iterator[None]:
    """Undo what changes in a checkout do to the times of directories, and so to the bytes of the archive."""
    yield
    restore.restore_times(str(tree), {path: entry for path, entry in stored.items() if entry.type == "dir"})


@contextmanager
def alone(site: Site, job: PackJob, tagged: Tagged) -> Iterator[Packing]:
    """Yield what packs a tag, while nobody else packs for that osimage, serves in that place, or has the kept checkout."""
    rootimgdir, source = job.target.rootimgdir, tagged.image
    publish.make_parent(rootimgdir)
    with site.lock(job.target.image, "pack"), site.image_lock(rootimgdir), site.checkout(source) as checkout:
        gate, build = Gate(job, source, site.declared_secrets), partial(last_build, site, source, checkout)
        yield Packing(job, tagged, checkout, gate, build=build)

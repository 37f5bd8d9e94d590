"""From a tag to what nodes boot: check out, prove, archive, check, publish."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xcat_avs import command, delta, generate, mounts, restore, xcat
from xcat_avs.errors import AvsError
from xcat_avs.image import OsImage, Tag
from xcat_avs.manifest import SELINUX, Entry, Manifest
from xcat_avs.pack import addons, archive, packimage, proof, publish
from xcat_avs.pack.archive import Form
from xcat_avs.pack.publish import PackedSet
from xcat_avs.progress import Progress
from xcat_avs.report import utc_now
from xcat_avs.store import Store, Version
from xcat_avs.store.trees import checkout_tree

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
            with self._changeable(stored) as tree, publish.new_set(self.rootimgdir) as new:
                moved = publish.finish_interrupted(self.rootimgdir)
                self.progress.begin(f"packing {self.tag.name}")
                name, changed = self._archive(tree, stored, new)
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
                    changed,
                )
                final, moved_now = publish.publish(new, self.rootimgdir, record, self.reserved)
                return record, final, moved_now or moved
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
        if not root.is_dir():
            raise AvsError(f"{self.source.name}: tag {self.tag.name} holds no rootimg")
        wanted = proof.below(stored, "rootimg")
        form = self._form(wanted)
        archive.refuse_large(form, wanted.values())
        with _kept_times(tree, stored):
            released = self._release(root)
        wanted, _ = proof.look_again(wanted, root, released)
        if self.packer == "packimage":
            return self._packimage(tree, form, wanted, new)
        excluded, included = archive.read_exlist(self.target.paths("exlist"))
        with _kept_times(tree, stored):
            archive.prune(root, excluded, included)
        wanted = proof.chosen(wanted, archive.with_parents([".", *archive.select([*wanted], excluded, included)]))
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
        changed = packimage.check(made, self.checkout / "rootimg", wanted, self.target, self.log, self.timeout)
        for path, why in changed.items():
            self.progress.verbose(f"packimage changed {path!a}: {why}")
        shutil.move(str(made), str(new / made.name))
        return made.name, changed

    def _addons(self, tree: Path, new: Path) -> None:
        for name in addons.foreign(tree):
            self.progress.warn(
                f"{self.source.name}: tag {self.tag.name} holds the add-on {name} as avs_image_mgr stored it; it is not packed"
            )
        addons.write(tree, self.checkout / "rootimg", new, self.facts(), self.log, self.timeout)

    def _form(self, wanted: Manifest) -> Form:
        """The form asked for; for `auto` tar where the image has what cpio loses. A warning for what it loses else."""
        own = self.packer == "own"
        rich = any(name != SELINUX for entry in wanted.values() for name, _ in entry.xattrs)
        method = "tar" if self.method == "auto" and rich else self.method
        form = own_form(method, self.compress)  # of packimage only the method counts; its default is cpio
        for text in proof.losses(wanted, form, own):
            self.progress.warn(f"{self.source.name}: {text}")
        return form

    def _release(self, root: Path) -> list[str]:
        """Write /etc/avs-release and /opt/xcat/xcatinfo; packimage writes the latter anew. Returns what that changed."""
        text = _lines(self.facts())
        changed = []
        for name, content in ((RELEASE, text), (XCATINFO, _lines({"IMAGENAME": self.target.name}) + text)):
            path = root / name
            # Not through a link of the image's to somewhere on this machine.
            real = os.path.realpath(path.parent)
            if real != str(path.parent) and not real.startswith(os.path.realpath(root) + os.sep):
                raise AvsError(f"{self.source.name}: /{os.path.dirname(name)} of the image leads out of it")
            place = proof.place(root, name)
            while not os.path.lexists(root / os.path.dirname(place)):  # up to what has to be made
                place = os.path.dirname(place)
            changed.append(place)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            path.unlink(missing_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
            for made in (path, path.parent, path.parent.parent):
                os.utime(made, (0, 0))
        return changed

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


def _hidden_by_overlay(entry: Entry) -> bool:
    """Whether an overlay over a tree with this would not show it: the marks that overlays make themselves."""
    return (entry.type == "char" and entry.device == (0, 0)) or any(
        name.startswith(delta.OVERLAY) for name, _ in entry.xattrs
    )


@contextmanager
def _kept_times(tree: Path, stored: Manifest) -> Iterator[None]:
    """Undo what changes in a checkout do to the times of directories, and so to the bytes of the archive."""
    yield
    left = {path: entry for path, entry in stored.items() if entry.type == "dir" and os.path.lexists(tree / path)}
    restore.restore_times(str(tree), left)

"""From a tag to what nodes boot: check out, prove, archive, check, publish."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from xcat_avs import command, generate, manifest, mounts
from xcat_avs.image import OsImage, Tag
from xcat_avs.pack import archive, publish
from xcat_avs.pack.archive import Form
from xcat_avs.pack.publish import PackedSet
from xcat_avs.progress import Progress
from xcat_avs.report import utc_now
from xcat_avs.store import Store, Version, checkout_tree


def pack(store: Store, source: OsImage, tag: Tag, target: OsImage, rootimgdir: Path, form: Form, staging: Path, user: str,
         progress: Progress, timeout: float = 0) -> tuple[PackedSet, str]:  # fmt: skip
    """Pack a tag of source and serve it as target at rootimgdir.

    staging: a private directory, on disk and not served, that is emptied before and removed after.
    Returns what was published and where a real directory found at rootimgdir was moved to, or "".
    Raises AvsError; what is served is then as it was.
    """
    for program in form.programs():
        command.need(program)
    excluded, included = archive.read_exlist(target.paths("exlist"))
    mounts.remove_tree(staging)
    staging.mkdir(parents=True, mode=0o700)
    log = staging / "log"
    try:
        tree = staging / "tree"
        tree.mkdir()
        progress.begin(f"checking out {tag.name}")
        stored = checkout_tree(store, source, Version(tag=tag.name), tree, progress.warn)
        root = tree / "rootimg"
        with publish.new_set(rootimgdir) as new:
            moved = publish.finish_interrupted(rootimgdir)
            progress.begin(f"packing {form.filename}")
            if archive.prune(root, excluded, included):
                # Removing changed the times of directories, and with them the bytes of the archive.
                left = {path: entry for path, entry in stored.items() if os.path.lexists(tree / path)}
                manifest.restore_times(str(tree), left)
            archive.write(root, new / form.filename, form, log, timeout)
            for name in (generate.KERNEL, generate.INITRD):
                if (tree / name).is_file():
                    shutil.copyfile(tree / name, new / name)
                else:
                    progress.warn(f"{source.name}: tag {tag.name} holds no {name}; nodes cannot boot this image")
            files = publish.describe_files(new)
            record = PackedSet(
                target.name, source.name, tag.name, tag.source, utc_now(), user, form.filename, files=files
            )
            published, moved_now = publish.publish(new, rootimgdir, record)
            return published, moved_now or moved
    finally:
        progress.end()
        mounts.remove_tree(staging)

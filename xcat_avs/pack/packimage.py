"""xCAT's packimage, in the private namespace, and a look at what its exit code hides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from xcat_avs import command, manifest, xcat
from xcat_avs.definitions import exlist
from xcat_avs.errors import AvsError
from xcat_avs.image import OsImage
from xcat_avs.pack import archive
from xcat_avs.pack.archive import MARK, Form

COMPRESS = ("auto", "gzip", "pigz", "xz")
LEAST_RATIO = 200  # no compression makes an image this many times smaller
# What packimage leaves out by itself: the statelite form of the image.
ITS_OWN = ("./etc/init.d/statelite", "./etc/rc.sysinit.backup", "./.statelite*", "./.default*", "./.statebackup*")
# What it writes into the tree, through any link that is there.
WRITTEN = ("etc", "etc/shadow", "opt/xcat", "opt/xcat/xcatinfo", "opt/xcat/xcatdsklspost", "xcatpost", ".statebackup")
DEFAULT_PASSWORD = "cluster"  # what packimage writes without an entry in the passwd table
# Runs for uuidgen inside packimage, which writes its answer between quotes to /opt/xcat/xcatinfo.
UUIDGEN = """#!/bin/sh
cat /proc/sys/kernel/random/uuid | tr -d '\\n'
cat <<'EOF'
{lines}
EOF
"""


def write(tree: Path, image: OsImage, rootimgdir: Path, method: str, compress: str, facts: Mapping[str, str], work: Path,
          log: Path, timeout: float = 0) -> Path:  # fmt: skip
    """Have packimage archive tree/rootimg, a disposable checkout, as image; returns the archive, in tree.

    method: cpio, tar, squashfs, or empty for xCAT's default.
    facts: NAME -> plain value, for /opt/xcat/xcatinfo. work: a private directory.
    Raises AvsError, also where packimage says that all is well and it is not.
    """
    xcat.refuse_incomplete(image, rootimgdir, build=False)
    xcat.refuse_unsafe(image)
    excluded, included = exlist.read(image.paths("exlist"), {})
    excluded += ITS_OWN
    root = tree / "rootimg"
    argv = [xcat.need("packimage")]
    argv += ["-m", method] if method else []
    argv += ["-c", compress] if compress else []
    for stale in tree.glob(MARK + "*"):
        stale.unlink()
    _lend_uuidgen(work / "bin", facts)
    env = xcat.bypass()
    env["PATH"] = os.pathsep.join([str(work / "bin"), env["PATH"]])
    _refuse_ways_out(root, image)
    (root / "opt/xcat").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(xcat.private_locks(work / "locks"))
        stack.enter_context(xcat.seen_at(tree, rootimgdir, work / "above"))
        command.run([*argv, image.name], log=log, env=env, cwd=Path("/"), timeout=timeout)
    return _checked(tree, image, excluded, included, log, timeout)


def _refuse_ways_out(root: Path, image: OsImage) -> None:
    """packimage writes by paths of this machine: through an image's link it would write files of this machine."""
    top = os.path.realpath(root)
    for name in WRITTEN:
        real = os.path.realpath(root / name)
        if not real.startswith(f"{top}/"):
            raise AvsError(
                f"{image.name}: /{name} of the image leads out of it, to {real}, and packimage would write there; "
                "make it a file or directory of the image, or set [pack] packer = own"
            )


def refuse_compress(compress: str) -> None:
    """Refuse a compression that packimage does not know."""
    if compress not in COMPRESS:
        raise AvsError(
            f"packimage compresses by {', '.join(COMPRESS[1:])}, not by {compress}; for that, set [pack] packer = own"
        )


def _lend_uuidgen(directory: Path, facts: Mapping[str, str]) -> None:
    """packimage writes IMAGEUUID='`uuidgen`' over what is in xcatinfo: let the answer hold our facts as well."""
    directory.mkdir(parents=True, mode=0o700)
    lines = "'\n" + "".join(f"{name}='{value}'\n" for name, value in facts.items())
    script = directory / "uuidgen"
    # The last quote is packimage's own.
    script.write_text(UUIDGEN.format(lines=lines.rstrip("\n").removesuffix("'")), encoding="utf-8")
    script.chmod(0o755)


def _checked(tree: Path, image: OsImage, excluded: list[str], included: list[str], log: Path, timeout: float) -> Path:
    """The one archive that packimage made, whole and sane, or AvsError."""
    root = tree / "rootimg"
    found = sorted(path.name for path in tree.glob(MARK + "*"))
    if len(found) != 1:
        raise AvsError(f"{image.name}: packimage ended well and left {', '.join(found) or 'no archive'}; one was expected",
                       command.tail(log), str(log))  # fmt: skip
    file = tree / found[0]
    form = Form.of(found[0])
    kept = exlist.select([path for path, _ in manifest.walk(str(root))], excluded, included)
    archive.check_complete(file, form, kept, log, timeout)
    size, held = file.stat().st_size, sum(os.lstat(root / path).st_size for path in kept if (root / path).is_file())
    if size * LEAST_RATIO < held:
        raise AvsError(
            f"{image.name}: packimage made an archive of {size} bytes from {held} bytes; that cannot be all of it"
        )
    shadow = root / "etc/shadow"
    lines = shadow.read_text(encoding="utf-8", errors="replace").splitlines() if shadow.is_file() else []
    if any(line.split(":")[:2] == ["root", DEFAULT_PASSWORD] for line in lines):
        raise AvsError(f"{image.name}: the passwd table has no root, so packimage wrote its default as root's password; set one with "
                       "`chtab key=system passwd.username=root passwd.password=HASH`")  # fmt: skip
    return file

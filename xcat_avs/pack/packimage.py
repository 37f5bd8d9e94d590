"""Pack with xCAT's packimage in the private namespace, and check what its exit code hides."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from xcat_avs.definitions import exlist
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack import proof
from xcat_avs.pack.archive import MARK, Form
from xcat_avs.pack.job import PackJob
from xcat_avs.system import command
from xcat_avs.tree.manifest import Manifest
from xcat_avs.xcat import private, programs

# packimage leaves these out by itself; they are the statelite form of the image.
ITS_OWN = ("./etc/init.d/statelite", "./etc/rc.sysinit.backup", "./.statelite*", "./.default*", "./.statebackup*")
# packimage writes these into the tree, through any link that is there.
WRITTEN = ("etc", "etc/shadow", "opt/xcat", "opt/xcat/xcatinfo", "opt/xcat/xcatdsklspost", "xcatpost", ".statebackup")
DEFAULT_PASSWORD = "cluster"  # packimage sets it where the passwd table has no entry
SHADOW, LOCALTIME, ZONES = "etc/shadow", "etc/localtime", "usr/share/zoneinfo/"
# What packimage changes in every image, and why.
BY_DESIGN = {
    SHADOW: "root's password of the passwd table", LOCALTIME: "site.timezone", "xcatpost": "xCAT's postscripts",
    "opt/xcat/xcatinfo": "the name of the image", "opt/xcat/xcatdsklspost": "xCAT's start of the postscripts",
    "usr/lib/dracut/modules.d/97xcat/install": "xCAT's dracut module", "etc/rc.sysinit": "the one from before statelite",
}  # fmt: skip
XDCP = "var/xcat"  # xdcp, which copies the files of synclists, keeps its data there
# Replaces cpio inside packimage. cpio truncates inode numbers to 32 bits, so that two files may get the same one and
# become hard links of each other.
CPIO = """#!/bin/sh
case " $* " in *" -o "*) exec {cpio} --reproducible "$@" ;; esac
exec {cpio} "$@"
"""
# Replaces uuidgen inside packimage, which writes its answer between quotes to /opt/xcat/xcatinfo.
UUIDGEN = """#!/bin/sh
cat /proc/sys/kernel/random/uuid | tr -d '\\n'
cat <<'EOF'
{lines}
EOF
"""


def write(tree: Path, job: PackJob, method: str, facts: Mapping[str, str], total: int) -> Path:
    """Have packimage archive tree/rootimg, a disposable checkout; returns the one archive that it made, in tree.

    method: cpio, tar, squashfs, or empty for xCAT's default.
    facts: NAME -> plain value, for /opt/xcat/xcatinfo. total: bytes of what is archived.
    """
    image, work, log = job.target.image, job.staging, job.log
    root = tree / "rootimg"
    argv = [programs.need("packimage")]
    argv += ["-m", method] if method else []
    argv += ["-c", job.compress] if job.compress != "auto" else []
    for stale in tree.glob(MARK + "*"):
        stale.unlink()
    _lend(work / "bin", facts)
    env = programs.bypass()
    env["PATH"] = os.pathsep.join([str(work / "bin"), env["PATH"]])
    _refuse_ways_out(root, image)
    (root / "opt/xcat").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(private.private_locks(work / "locks"))
        stack.enter_context(private.seen_at(tree, job.target.rootimgdir, work / "above"))
        # Each form is made by way of cpio.
        job.runner.sized(total, program="cpio").run([*argv, image.name], env=env, cwd=Path("/"))
    found = sorted(path.name for path in tree.glob(MARK + "*"))
    if len(found) != 1:
        raise AvsError(f"{image.name}: packimage ended well and left {', '.join(found) or 'no archive'}; one was expected",
                       command.tail(log), str(log))  # fmt: skip
    return tree / found[0]


def _refuse_ways_out(root: Path, image: OsImage) -> None:
    """Refuse links of the image through which packimage, which is not in a chroot, would write to this machine."""
    top = os.path.realpath(root)
    for name in WRITTEN:
        real = os.path.realpath(root / name)
        if not real.startswith(f"{top}/"):
            raise AvsError(
                f"{image.name}: /{name} of the image leads out of it, to {real}, and packimage would write there; "
                "make it a file or directory of the image, or set [pack] packer = own"
            )


def _lend(directory: Path, facts: Mapping[str, str]) -> None:
    """Write the programs that packimage finds before the machine's own.

    It writes IMAGEUUID='`uuidgen`' over what is in xcatinfo: the answer holds our facts as well.
    """
    directory.mkdir(parents=True, mode=0o700)
    lent = directory / "cpio"
    lent.write_text(CPIO.format(cpio=command.need("cpio")), encoding="utf-8")
    lent.chmod(0o755)
    lines = "'\n" + "".join(f"{name}='{value}'\n" for name, value in facts.items())
    script = directory / "uuidgen"
    # packimage adds the last quote itself.
    script.write_text(UUIDGEN.format(lines=lines.rstrip("\n").removesuffix("'")), encoding="utf-8")
    script.chmod(0o755)


def check(file: Path, before: Path, wanted: Manifest, job: PackJob) -> dict[str, str]:
    """Prove the archive that packimage made, beside the tree. Returns path -> why, for what it changed by design.

    before: the root of the image as the tag has it. wanted: the manifest of what packimage was given.
    Raises AvsError, also where packimage said that all is well and it is not.
    """
    root, image = file.with_name("rootimg"), job.target.image
    _refuse_default_password(root, image)
    synced = [path for path in _synced(image, root) if not path.startswith("..")]
    reasons = {
        proof.place(root, path): why for path, why in {**BY_DESIGN, **dict.fromkeys(synced, "a synclist")}.items()
    }
    # packimage also makes the parent directories of what it adds.
    tops = {_first_new(path, wanted) for path in reasons if os.path.lexists(root / path) or path in wanted}
    wanted, others = proof.look_again(wanted, root, tops)
    if SHADOW not in synced and _without_root(root / SHADOW) != _without_root(before / SHADOW):
        raise AvsError(f"{image.name}: packimage changed more in /{SHADOW} than the password of root")
    kept = set(exlist.select(sorted(wanted), [*job.excluded, *ITS_OWN], job.included))
    form = Form.of(file.name)
    if form.method == "squashfs":
        kept.discard(".")  # packimage makes the top anew, with mode 0755
    # It takes in the zone by itself; and directories that lead to a file are made by what copies it.
    zone = os.readlink(root / LOCALTIME).lstrip("./") if (root / LOCALTIME).is_symlink() else ""
    optional = exlist.with_parents(kept) | exlist.with_parents([zone] if zone.startswith(ZONES) else []) | {"."}
    try:
        proof.prove(file, form, proof.chosen(wanted, kept), job.runner, optional)
    except AvsError as err:
        raise err.prefixed(
            f"{image.name}: nothing was published, for what packimage made is not what was given to it: "
        ) from None
    return {path: _reason(path, reasons) for path in others}


def _first_new(path: str, wanted: Mapping[str, object]) -> str:
    """The path, or the first directory that leads to it and was not there."""
    while os.path.dirname(path) and os.path.dirname(path) not in wanted:
        path = os.path.dirname(path)
    return path


def _reason(path: str, reasons: Mapping[str, str]) -> str:
    while path and path not in reasons:
        path = os.path.dirname(path)
    return reasons.get(path, "a directory that leads to what was changed")


def _synced(image: OsImage, root: Path) -> Iterator[str]:
    """The paths of the image that the synclists of its definition put files to."""
    for synclist in image.paths("synclists"):
        yield XDCP
        text = synclist.read_text(encoding="utf-8", errors="replace") if synclist.is_file() else ""
        for line in text.splitlines():
            given, arrow, target = line.strip().partition("->")
            words = target.split(")")[-1].split()  # `(NODERANGE) TARGET`
            if not arrow or not words or given.startswith("#"):
                continue
            sources = [name for pattern in given.split() for name in glob.glob(pattern) or [pattern]]
            for source in sources:
                inside = len(sources) > 1 or words[0].endswith("/") or (root / words[0].lstrip("/")).is_dir()
                name = os.path.basename(source.rstrip("/")) if inside else ""
                yield os.path.normpath(os.path.join(words[0].lstrip("/"), name))


def _without_root(shadow: Path) -> list[bytes]:
    if shadow.is_symlink() or not shadow.is_file():
        return []
    return [line for line in shadow.read_bytes().splitlines() if not line.startswith(b"root:")]


def _refuse_default_password(root: Path, image: OsImage) -> None:
    shadow = root / SHADOW
    lines = shadow.read_text(encoding="utf-8", errors="replace").splitlines() if shadow.is_file() else []
    if any(line.split(":")[:2] == ["root", DEFAULT_PASSWORD] for line in lines):
        raise AvsError(f"{image.name}: the passwd table has no root, so packimage wrote its default as root's password; set one with "
                       "`chtab key=system passwd.username=root passwd.password=HASH`")  # fmt: skip

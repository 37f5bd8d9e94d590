"""The same tree gives the same archive, to the byte, whoever packs it, where, when, and on how many processors."""

from __future__ import annotations

import ctypes
import gzip
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xcat_avs.pack import additions, archive
from xcat_avs.pack.archive import Form
from xcat_avs.system import command
from xcat_avs.system.runner import Runner
from xcat_avs.tree import scan

FORMS = [Form(method, compress) for method in ("cpio", "tar", "squashfs") for compress in ("gzip", "zstd", "xz")]
GZIP = ("igzip", "pigz", "gzip")
NEWUTS = 0x04000000
NAMES = [f"d{number}/{name}" for number in range(3) for name in ("a", "b.conf", "Ä", "new\nline", "-x")]
# By which the archives of two people differ, where they do.
XATTRS = {"user.one": b"1", "user.two": b"2", "trusted.three": b"3", "user.four": b""}


def make(root: Path, order: Callable[[list[str]], list[str]]) -> Path:
    """The same tree, whose files and attributes come in another order."""
    root.mkdir(parents=True)
    same = random.Random(1)
    contents = {name: same.randbytes(100) for name in NAMES}
    contents["large"] = same.randbytes(1 << 19) + b"text " * 500_000  # more than one block of any compressor
    for name in order([*contents]):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(contents[name])
    with open(root / "sparse", "wb") as stream:
        stream.truncate(1 << 20)
        stream.seek(1 << 19)
        stream.write(b"in the middle")
    os.link(root / "d0/a", root / "d1/hard")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.symlink("d0/a", root / "link")
    os.chown(root / "d0/b.conf", 1234, 4321)
    subprocess.run(["setfacl", "-m", "u:daemon:r", str(root / "d2/a")], check=True, timeout=60)
    for name in order([*XATTRS]):
        os.setxattr(root / "d0/b.conf", name, XATTRS[name])
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(time.time_ns(), 10**18 + number * 10**6 + 1), follow_symlinks=False)
    os.utime(root, ns=(0, 10**18))
    return root


def elsewhere(work: Callable[[], object]) -> None:
    """Do it in a process with another host name, time zone, umask and set of processors."""
    child = os.fork()
    if not child:
        code = 1
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(NEWUTS) == 0
            assert libc.sethostname(b"elsewhere", 9) == 0
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            os.cpu_count = lambda: 64
            os.environ.update(TZ="Pacific/Kiritimati", LANG="tr_TR.UTF-8", LC_ALL="C", USER="eve", SOURCE_DATE_EPOCH="5",
                              GZIP="-1", XZ_OPT="-1", ZSTD_CLEVEL="1", TAR_OPTIONS="--sort=none")  # fmt: skip
            time.tzset()
            os.umask(0o077)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def packed(root: Path, target: Path, form: Form) -> str:
    found = {path: entry.xattrs for path, entry in scan.scan(str(root)).items() if entry.xattrs}
    additions.order(root, found)
    archive.write(root, target, form, Runner(target.with_suffix(".log")))
    return scan.digest(str(target))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if os.geteuid() != 0:
        pytest.skip("not root")
    top = tmp_path_factory.mktemp("trees")
    return make(top / "one", lambda names: names), make(top / "farther/away/two", lambda names: names[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.method}-{form.compress}")
def test_another_machine_makes_the_same(
    trees: tuple[Path, Path], tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    hidden: set[str] = set()
    find = command.find
    monkeypatch.setattr(command, "find", lambda name: None if name in hidden else find(name))
    for program in GZIP if form.compress == "gzip" and form.method == "cpio" else [""]:
        if program and shutil.which(program) is None:
            continue
        assert not program or form.compressor()[0] == program
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        here = packed(trees[0], tmp_path / "archive", form)
        monkeypatch.undo()
        monkeypatch.setattr(command, "find", lambda name: None if name in hidden else find(name))
        elsewhere(lambda: packed(trees[1], tmp_path / "there/archive", form))
        assert scan.digest(str(tmp_path / "there/archive")) == here, program or form
        for path in (tmp_path / "archive", tmp_path / "there/archive"):
            path.unlink()
        hidden.add(program)


def test_nothing_in_a_tar_is_of_this_machine(trees: tuple[Path, Path], tmp_path: Path) -> None:
    packed(trees[0], tmp_path / "archive", Form("tar", "gzip"))
    data = gzip.decompress((tmp_path / "archive").read_bytes())
    # The numbers of users, and not their names; and no number of a process, as later forms of sparse files have it.
    assert b"SCHILY.xattr.system.posix_acl_access=" in data
    assert [word for word in (b"SCHILY.acl", b"daemon", b"GNUSparseFile", b"atime=", b"ctime=") if word in data] == []


def test_what_wrote_it_is_known(tmp_path: Path) -> None:
    found = Form("cpio", "gzip").versions(Runner())
    assert set(found) == {"cpio", Form("cpio", "gzip").compressor()[0]}
    assert all(any(char.isdigit() for char in text) for text in found.values()), found
    if shutil.which("mksquashfs"):
        assert "mksquashfs version" in Form("squashfs", "gzip").versions(Runner())["mksquashfs"]

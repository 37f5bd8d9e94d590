"""Archives: exlists as find understands them, the same bytes from the same tree, nothing missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.pack import archive, proof
from xcat_avs.pack.archive import Form
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, scan

METHODS = ("cpio", "tar", "squashfs")
COMPRESSIONS = ("gzip", "zstd", "xz")
FORMS = [Form(method, compress) for method in METHODS for compress in COMPRESSIONS]


def by_name(form: Form) -> str:
    return f"{form.method}-{form.compress}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small image root with every kind of file that a store gives back, and odd names."""
    top = tmp_path / "tree/rootimg"
    for name in ("etc", "usr/share/man/man1", "usr/share/doc/bash", "usr/lib", "var/empty", "tmp", "dev", "a-b", "a"):
        (top / name).mkdir(parents=True)
    for name in ("etc/passwd", "usr/share/man/man1/ls.1", "usr/share/man/index", "usr/share/doc/bash/copyright", ".hidden",
                 "usr/lib/with space", "usr/lib/back\\slash", "usr/lib/star*", "usr/lib/[x]", "usr/lib/ünïcode-✓", "usr/lib/'q\"",
                 "usr/lib/-dash", "usr/lib/ lead", "usr/lib/trail ", "a-b/x", "a/x", "usr/lib/tab\there", "a/new\nline", "a/\n", "a/x\n",
                 "a/b\n/\nc/./d", "usr/lib/latin-\udcff"):  # fmt: skip
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(os.fsencode(name) * 50)
    (top / "usr/lib/empty").touch()
    os.symlink("../nowhere", top / "usr/lib/dangling")
    os.symlink("usr/lib", top / "lib")
    os.mknod(top / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(top / "tmp", 0o1777)
    os.link(top / "a/x", top / "a/hard")
    os.chown(top / "etc/passwd", 1234, 4321)
    os.chmod(top / "etc/passwd", 0o4750)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 10**18 + number * 10**9), follow_symlinks=False)
    os.utime(top, ns=(0, 10**18))
    return top


def write(root: Path, path: Path, form: Form, log: Path) -> None:
    """An archive as it is packed: written and proven."""
    wanted = scan.scan_with_top(str(root))
    archive.refuse_large(form, wanted.values())
    archive.write(root, path, form, Runner(log))
    proof.prove(path, form, wanted, Runner(log))


def unpack(path: Path, form: Form, target: Path) -> Path:
    """The tree of an archive, by the programs that a node would use."""
    target.mkdir()
    if form.method == "squashfs":
        subprocess.run(
            ["unsquashfs", "-q", "-n", "-f", "-d", str(target), str(path)], check=True, stdout=subprocess.DEVNULL
        )
        return target
    program = {"gzip": "gzip", "zstd": "zstd", "xz": "xz"}[form.compress]
    plain = subprocess.run([program, "-d", "-c"], stdin=path.open("rb"), stdout=subprocess.PIPE, check=True).stdout
    reader = ["cpio", "-idm", "--quiet"] if form.method == "cpio" else ["tar", "-xp", "--xattrs", "--xattrs-include=*"]
    subprocess.run(reader, input=plain, cwd=target, check=True)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=by_name)
def test_an_archive_is_complete_and_the_same_in_every_run(root: Path, tmp_path: Path, form: Form) -> None:
    log = tmp_path / "log"
    first, second = tmp_path / "1", tmp_path / "2"
    write(root, first, form, log)
    assert (
        manifest.compare(scan.scan(str(root)), scan.scan(str(unpack(first, form, tmp_path / "out"))), times=False) == []
    )
    # Another copy at another place, with other inodes, link counts of its own, other atimes and ctimes.
    copy = tmp_path / "elsewhere/rootimg"
    copy.parent.mkdir()
    subprocess.run(["cp", "-a", str(root), str(copy)], check=True)
    for path in [copy, *copy.rglob("*")]:
        os.utime(path, ns=(4 * 10**18, path.lstat().st_mtime_ns), follow_symlinks=False)
    write(copy, second, form, log)
    assert scan.digest(str(first)) == scan.digest(str(second))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "elsewhere", "log", "out", "tree"], (
        "nothing else is left"
    )


@pytest.mark.parametrize("method", ["cpio", "tar"])
def test_times_are_in_the_archive(root: Path, tmp_path: Path, method: str) -> None:
    form = Form(method, "gzip")
    write(root, tmp_path / "1", form, tmp_path / "log")
    out = unpack(tmp_path / "1", form, tmp_path / "out")
    assert (out / "etc/passwd").stat().st_mtime == (root / "etc/passwd").stat().st_mtime
    os.utime(root / "etc/passwd", ns=(0, 5))
    write(root, tmp_path / "2", form, tmp_path / "log")
    assert (tmp_path / "1").read_bytes() != (tmp_path / "2").read_bytes()


def test_tar_keeps_attributes(root: Path, tmp_path: Path) -> None:
    os.setxattr(root / "a/x", "user.avs", b"kept")
    write(root, tmp_path / "1", Form("tar", "gzip"), tmp_path / "log")
    out = unpack(tmp_path / "1", Form("tar", "gzip"), tmp_path / "out")
    assert os.getxattr(out / "a/x", "user.avs") == b"kept"
    assert os.path.samefile(out / "a/x", out / "a/hard")


def farm(directory: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """A PATH of links to the machine's programs, but some."""
    directory.mkdir()
    for source in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for name in os.listdir(source):
            if name not in leave_out and not os.path.lexists(directory / name):
                (directory / name).symlink_to(f"{source}/{name}")
    return directory


# What a wrapper does to the list of names on its way to the archiver, or to the archiver's output.
BROKEN = {
    "cpio": ('case "$*" in *-o*) LC_ALL=C grep -z -v usr/lib/empty | exec REAL "$@" ;; esac\nexec REAL "$@"\n'),
    "tar": 'case "$*" in *--create*) exec REAL --exclude=usr/lib/empty "$@" ;; esac\nexec REAL "$@"\n',
    "mksquashfs": 'exec REAL "$@" -e usr/lib/empty\n',
}


@pytest.mark.parametrize(("method", "program"), [("cpio", "cpio"), ("tar", "tar"), ("squashfs", "mksquashfs")])
def test_a_missing_member_is_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, program: str
) -> None:
    real = shutil.which(program)
    assert real
    wrapper = farm(tmp_path / "bin", (program,)) / program
    wrapper.write_text("#!/bin/sh\n" + BROKEN[program].replace("REAL", real))
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    with pytest.raises(AvsError, match=r"the archive lacks 1 of \d+ paths:\n  usr/lib/empty$"):
        write(root, tmp_path / "1", Form(method, "gzip"), tmp_path / "log")


@pytest.mark.parametrize("method", ["tar", "squashfs"])
def test_a_missing_member_with_a_new_line_in_its_name_is_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    program = {"tar": "tar", "squashfs": "mksquashfs"}[method]
    real = shutil.which(program)
    wrapper = farm(tmp_path / "bin", (program,)) / program
    option = {"tar": "--exclude='a/new*' \"$@\"", "squashfs": "\"$@\" -wildcards -e 'a/new*'"}[method]
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *--list*) exec {real} "$@" ;; esac\nexec {real} {option}\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    with pytest.raises(AvsError, match=r"the archive lacks 1 of \d+ paths:\n  a/new\\nline$"):
        write(root, tmp_path / "1", Form(method, "gzip"), tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("form", [Form("cpio", "gzip"), Form("tar", "zstd"), Form("cpio", "xz")], ids=by_name)
def test_a_compressor_that_cuts_off_is_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    program = form.compressor()[0]
    real = shutil.which(program)
    wrapper = farm(tmp_path / "bin", (program,)) / program
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *-d*) exec {real} "$@" ;; esac\n{real} "$@" | head -c 200\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    with pytest.raises(AvsError):
        write(root, tmp_path / "1", form, tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cpio", "tar"])
def test_a_failing_archiver_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    wrapper = farm(tmp_path / "bin", (method,)) / method
    wrapper.write_text("#!/bin/sh\necho cannot read: No such file >&2\nexit 2\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    with pytest.raises(AvsError, match=f"^{method} failed with exit code 2") as caught:
        write(root, tmp_path / "1", Form(method, "gzip"), tmp_path / "log")
    assert "cannot read: No such file" in str(caught.value)


def test_a_socket_cannot_be_archived_and_is_not_lost_silently(root: Path, tmp_path: Path) -> None:
    here = os.getcwd()
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("tmp/socket")
    os.chdir(here)
    with pytest.raises(AvsError, match="tmp/socket"):
        write(root, tmp_path / "1", Form("tar", "gzip"), tmp_path / "log")


@pytest.mark.slow
def test_a_file_that_cpio_cannot_hold(root: Path, tmp_path: Path) -> None:
    with open(root / "usr/lib/big", "wb") as stream:
        stream.truncate(2**32)
    with pytest.raises(AvsError, match=r"usr/lib/big is larger than 4 GiB.*--method tar"):
        write(root, tmp_path / "1", Form("cpio", "gzip"), tmp_path / "log")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (Form("cpio", "gzip"), "rootimg.cpio.gz"), (Form("cpio", "xz"), "rootimg.cpio.xz"), (Form("cpio", "zstd"), "rootimg.cpio.zst"),
        (Form("tar", "gzip"), "rootimg.tar.gz"), (Form("squashfs", "xz"), "rootimg.sfs"),
    ],
)  # fmt: skip
def test_names_are_those_xcat_knows(form: Form, name: str) -> None:
    assert form.filename == name


@pytest.mark.slow
def test_gzip_takes_the_fastest_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without: tuple[str, ...] = ()
    for number, program in enumerate(["igzip", "pigz", "gzip"]):
        assert shutil.which(program), f"{program} is not installed"
        directory = farm(tmp_path / f"bin{number}", without)
        # sbin is always added to PATH; none of these live there.
        monkeypatch.setenv("PATH", str(directory))
        monkeypatch.setattr(
            "xcat_avs.system.command.environment", lambda extra=None, path=directory: {"PATH": str(path)}
        )
        assert Form("cpio", "gzip").compressor()[0] == program
        without = (*without, program)


PATTERNS = [
    ["./usr/share/man*"],
    ["./usr/share/man"],
    ["./usr/share/man/*"],
    ["./usr/*/bash*"],
    ["*"],
    ["./*"],
    ["."],
    ["usr/share/man*"],
    ["./.hidden", "./*hidden"],
    ["./usr/lib/*x*"],
    ["./usr/lib/?x]"],
    ["./usr/lib/[[]x]"],
    ["./usr/lib/[a-e]*"],
    ["./usr/lib/[!a-z]*"],
    ["./usr/lib/[^a-z]*"],
    ["./usr/lib/star\\*"],
    ["./usr/lib/back\\\\slash"],
    ["./usr/lib/\\[x\\]"],
    ["./usr/lib/[[:alpha:]]*"],
    ["./usr/lib/[[:space:]]lead"],
    ["./usr/lib/ünïcode-?"],
    ["./a/*", "./a-b"],
    ["./lib/*"],
    ["./LIB", "./TMP"],
    ["./tmp/"],
    ["./etc/passwd", "./dev/*"],
    ["./usr/lib/[unclosed"],
]


@pytest.mark.parametrize("included", [[], ["./usr/share/man/man1*"], ["./usr/lib/e*", "./a/hard"]], ids=str)
@pytest.mark.parametrize("excluded", PATTERNS, ids=str)
def test_exlists_mean_what_find_takes_them_for(root: Path, excluded: list[str], included: list[str]) -> None:
    """xCAT gives the lines of an exlist to find; what is left must be what it would have found."""
    argv = ["find", ".", "-xdev", "("]
    for pattern in excluded:
        argv += ["!", "-path", pattern]
    argv.append(")")
    for pattern in included:
        argv += ["-o", "-path", pattern]
    argv.append("-print0")
    # The implied -print would end the last branch only; the whole expression is in brackets.
    argv = [*argv[:3], "(", *argv[3:-1], ")", argv[-1]]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    output = subprocess.run(argv, cwd=root, capture_output=True, check=True, env=environment).stdout
    wanted = {os.fsdecode(name)[2:] for name in output.split(b"\0") if name and name != b"."}
    # The archiver makes the directories that lead to a file.
    wanted |= {str(parent) for name in wanted for parent in Path(name).parents if str(parent) != "."}
    before = {path for path, _ in scan.walk(str(root))}
    removed = archive.prune(root, excluded, included)
    left = {path for path, _ in scan.walk(str(root))}
    assert left == wanted
    assert removed == len(before) - len(left)


def test_prune_does_not_follow_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (root / "link").symlink_to(outside)
    archive.prune(root, ["./link*"], [])
    assert not (root / "link").is_symlink()
    assert (outside / "kept").exists()


def test_prune_of_nothing(root: Path) -> None:
    before = scan.scan(str(root))
    assert archive.prune(root, [], ["./a*"]) == 0
    assert archive.prune(root, ["./none"], []) == 0
    assert manifest.compare(before, scan.scan(str(root)), times=True) == []


def test_the_published_archive_is_readable_by_the_classic_programs(root: Path, tmp_path: Path) -> None:
    """igzip's output is read by gzip; what cpio lists is what find sees."""
    write(root, tmp_path / "1", Form("cpio", "gzip"), tmp_path / "log")
    listing = subprocess.run(
        f"gzip -dc {tmp_path}/1 | cpio -t --quiet | sort", shell=True, capture_output=True, check=True
    ).stdout
    found = subprocess.run(
        "find . | sed 's#^\\./##' | sort", shell=True, cwd=root, capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(listing).hexdigest() == hashlib.sha256(found).hexdigest()

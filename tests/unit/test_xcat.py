"""What is known of xCAT itself: noderanges, its lock, what it hands to a shell, what it refuses."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import random
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.xcat import fitness, noderange, private, programs

NAME = "rocky9.4-x86_64-netboot-compute"
COMPLETE = {
    "osvers": "rocky9.4", "osarch": "x86_64", "profile": "compute", "provmethod": "netboot", "rootimgdir": "/install/netboot/c",
    "pkglist": "/install/custom/c.pkglist",
}  # fmt: skip


def image(**attributes: str) -> OsImage:
    return OsImage(NAME, {key: value for key, value in {**COMPLETE, **attributes}.items() if value})


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([], ""), (["cn001"], "cn001"), (["cn001", "cn002"], "cn001,cn002"), (["cn001", "cn002", "cn003"], "cn001-cn003"),
        (["cn003", "cn001", "cn002", "cn001"], "cn001-cn003"), (["cn001", "cn002", "cn003", "cn005"], "cn001-cn003,cn005"),
        (["login1", "cn001", "cn002", "cn003", "cn004"], "cn001-cn004,login1"), (["a", "b"], "a,b"),
        (["cn8", "cn9", "cn10", "cn11", "cn12"], "cn8,cn9,cn10-cn12"), (["n098", "n099", "n100"], "n098-n100"),
        (["n0", "n1", "n2"], "n0-n2"), (["n00", "n01", "n02"], "n00-n02"), (["1", "2", "3"], "1-3"),
        (["r1n1", "r1n2", "r1n3", "r2n1"], "r1n1-r1n3,r2n1"), (["r1-n1", "r1-n2", "r1-n3"], "r1-n1-r1-n3"),
        (["cn1-ib", "cn2-ib", "cn3-ib"], "cn1-ib-cn3-ib"), (["cn1.site", "cn2.site", "cn3.site"], "cn1.site-cn3.site"),
        ([f"cn{number:04d}" for number in range(1, 1001)], "cn0001-cn1000"),
    ],
)  # fmt: skip
def test_collapse(nodes: list[str], wanted: str) -> None:
    assert noderange.collapse(nodes) == wanted


def expand(noderange: str, known: set[str]) -> list[str]:
    """As xCAT reads it: a node by its name; else an odd number of dashes, split in the middle; parts of the same form; the first number that differs counts."""
    found = []
    for atom in filter(None, noderange.split(",")):
        halves = atom.split("-")
        if atom in known:
            found.append(atom)
            continue
        left, right = ("-".join(part) for part in (halves[: len(halves) // 2], halves[len(halves) // 2 :]))
        ones, others = re.split(r"(\d+)", left), re.split(r"(\d+)", right)
        assert len(ones) == len(others), atom
        index = next(number for number, (one, other) in enumerate(zip(ones, others)) if one != other)
        assert ones[index].isdigit()
        assert ones[index + 1 :] == others[index + 1 :], atom
        width = len(ones[index])
        for number in range(int(ones[index]), int(others[index]) + 1):
            found.append("".join([*ones[:index], f"{number:0{width}d}", *ones[index + 1 :]]))
    return found


def test_whatever_is_collapsed_means_the_same_nodes() -> None:
    chance = random.Random(1)
    forms = ["cn{:03d}", "cn{}", "r1n{:02d}", "rack2-n{}", "n{}-ib", "{}", "login{}", "a{}b2", "x{:03d}.cluster"]
    for _ in range(300):
        nodes = {
            form.format(number)
            for form in chance.sample(forms, 3)
            for number in chance.sample(range(30), chance.randrange(15))
        }
        collapsed = noderange.collapse(sorted(nodes, key=lambda _: chance.random()))
        assert sorted(expand(collapsed, nodes)) == sorted(nodes), collapsed


def test_chdef_of_a_classic_image() -> None:
    classic = OsImage(
        "SL6.3-x86_64-netboot-example.prod", {"provmethod": "netboot", "rootimgdir": "/r", "pkglist": "/p"}
    )
    words = [
        "chdef",
        "-t",
        "osimage",
        "SL6.3-x86_64-netboot-example.prod",
        "osvers=SL6.3",
        "osarch=x86_64",
        "profile=example.prod",
    ]
    assert list(fitness.needed_chdef(classic)) == words
    with pytest.raises(AvsError) as err:
        fitness.refuse_incomplete(classic, Path("/install/x"), build=False)
    assert f"`{shlex.join(words)}`" in str(err.value)
    assert "`avsimage -c create SL6.3-x86_64-netboot-example.prod --define`" in str(err.value)


@pytest.mark.parametrize("missing", [("osvers",), ("osarch",), ("profile",), ("provmethod",), ("osvers", "provmethod")])
def test_mending_names_just_what_is_missing(missing: tuple[str, ...]) -> None:
    words = list(fitness.needed_chdef(image(**dict.fromkeys(missing, ""))))
    assert words == ["chdef", "-t", "osimage", NAME, *(f"{key}={COMPLETE[key]}" for key in missing)]


def test_a_complete_image_needs_no_chdef() -> None:
    assert list(fitness.needed_chdef(image())) == []
    fitness.refuse_incomplete(image(), Path("/install/x"), build=False)


UNQUOTED = ("rootimgdir", "pkglist", "otherpkglist", "exlist", "profile", "osvers", "osarch", "kernelver", "krpmver", "netdrivers",
            "nodebootif", "otherifce", "kerneldir", "permission", "synclists", "environvar", "driverupdatesrc")  # fmt: skip
UNSAFE = (
    " ",
    "'",
    '"',
    ";",
    "$",
    "\n",
    "\t",
    "`",
    "&",
    "|",
    "<",
    ">",
    "(",
    ")",
    "*",
    "?",
    "[",
    "{",
    "#",
    "\\",
    "!",
    "^",
    "é",
    "\x7f",
)


@pytest.mark.parametrize("attribute", UNQUOTED)
def test_what_a_shell_would_read_is_refused(attribute: str) -> None:
    for char in UNSAFE:
        with pytest.raises(AvsError) as err:
            fitness.refuse_unsafe(image(**{attribute: f"/a{char}b"}))
        text = str(err.value)
        assert text.startswith(f"{NAME}: {attribute}=")
        assert repr(char) in text
        assert f"chdef -t osimage {NAME} {attribute}=" in text


@pytest.mark.parametrize("attribute", ["pkgdir", "otherpkgdir", "postinstall"])
@pytest.mark.parametrize("char", ['"', "$", "`", "\\", "\n"])
def test_what_a_shell_reads_within_quotes_is_refused(attribute: str, char: str) -> None:
    with pytest.raises(AvsError, match=f"{NAME}: {attribute}="):
        fitness.refuse_unsafe(image(**{attribute: f"/a{char}(touch /x)"}))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("pkglist", "/install/custom/a.pkglist,/install/custom/b-1+2~x@y%z=.pkglist"), ("rootimgdir", "/install/netboot/rocky9.4/x86_64/c.test"),
        ("netdrivers", "mlx5_core,igb"), ("kernelver", "5.14.0-427.13.1.el9_4.x86_64"), ("addkcmdline", "quiet \"x\" $HOME"),
        ("description", "two words; 'quoted'"), ("environvar", "A=1,B=2"),
        # As xCAT takes them, within quotes: a mirror's line of sources.list, a script with arguments.
        ("pkgdir", "http://mirror.example/ubuntu jammy main,/install/ubuntu22.04/x86_64"), ("postinstall", "/install/post.sh one two"),
    ],
)  # fmt: skip
def test_what_is_safe_is_taken(attribute: str, value: str) -> None:
    fitness.refuse_unsafe(image(**{attribute: value}))


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "lock/xcat"
    monkeypatch.setattr(private, "LOCK_DIRECTORY", directory)
    return directory


def lock_name(rootimg: Path) -> str:
    return f"{str(rootimg).replace('/', '.')}.{hashlib.md5(str(rootimg).encode()).hexdigest()}"


def test_the_lock_has_the_name_that_xcat_gives_it(locks: Path) -> None:
    """As it was recorded; the directory need not be there."""
    recorded = ".install.netboot.debian12.x86_64.compute.rootimg.33b179856a8da78c622572d18539375f"
    assert lock_name(Path("/install/netboot/debian12/x86_64/compute/rootimg")) == recorded


def test_the_lock_is_that_of_the_directory_behind_a_link(locks: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "profile.v1", tmp_path / "profile"
    real.mkdir()
    link.symlink_to("profile.v1")
    with private.image_lock(link, os.getpid()):
        assert [path.name for path in locks.iterdir()] == [lock_name(real / "rootimg")]
        with open(locks / lock_name(real / "rootimg")) as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert (locks / lock_name(real / "rootimg")).read_text() == str(os.getpid())
    with open(locks / lock_name(real / "rootimg")) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


NO_NAME = ".d41d8cd98f00b204e9800998ecf8427e"  # as it was recorded


def test_the_lock_of_a_directory_that_is_not_there_yet(locks: Path, tmp_path: Path) -> None:
    """xCAT resolves its path to nothing: first builds of different images share it, and ours do not fail for each other."""
    with private.image_lock(tmp_path / "one", 11), private.image_lock(tmp_path / "two", 22):
        assert {path.name for path in locks.iterdir()} == {
            NO_NAME, lock_name(tmp_path / "one/rootimg"), lock_name(tmp_path / "two/rootimg"),
        }  # fmt: skip
        with open(locks / NO_NAME) as stream, pytest.raises(BlockingIOError):  # xCAT's own programs find it taken
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(AvsError, match="process 11"), private.image_lock(tmp_path / "one", 33):
            pass
    (tmp_path / "there").mkdir()
    (locks / NO_NAME).unlink()
    with private.image_lock(tmp_path / "there", 11):
        assert not (locks / NO_NAME).exists()


def test_a_lock_of_no_name_is_waited_for(locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks.mkdir(parents=True)
    monkeypatch.setattr(private, "SHARED_LOCK_WAIT", 0.3)
    (locks / NO_NAME).write_text("4711")
    with open(locks / NO_NAME) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with (
            pytest.raises(AvsError, match=r"directory that is new.*process 4711"),
            private.image_lock(tmp_path / "a", 1),
        ):
            pass
        monkeypatch.setattr(private, "SHARED_LOCK_WAIT", 30)
        threading.Timer(0.5, lambda: fcntl.flock(stream, fcntl.LOCK_UN)).start()
        with private.image_lock(tmp_path / "a", 1):
            pass


def test_a_lock_that_genimage_holds_is_an_error_at_once(locks: Path, tmp_path: Path) -> None:
    locks.mkdir(parents=True)
    path = locks / lock_name(tmp_path / "profile/rootimg")
    path.write_text("4711")
    with open(path) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with (
            pytest.raises(AvsError, match=r"genimage, packimage or rmimage .*process 4711"),
            private.image_lock(tmp_path / "profile", os.getpid()),
        ):
            pass
    assert path.read_text() == "4711"  # the holder's number stays for the next one
    with private.image_lock(tmp_path / "profile", os.getpid()):
        assert path.read_text() == str(os.getpid())


def test_a_lock_is_free_when_its_holder_was_killed(locks: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from xcat_avs.xcat import private\n"
        f"private.LOCK_DIRECTORY = Path({str(locks)!r})\n"
        f"with private.image_lock(Path({str(tmp_path / 'profile')!r}), __import__('os').getpid()): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(AvsError, match=str(process.pid)), private.image_lock(tmp_path / "profile", os.getpid()):
            pass
        process.kill()
        process.wait()
    with private.image_lock(tmp_path / "profile", os.getpid()):
        pass


def test_programs_are_found_in_the_path_and_in_xcatroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCATROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert programs.program("lsdef") is None
    with pytest.raises(AvsError, match=f"lsdef is neither in PATH nor in {tmp_path}/root"):
        programs.need("lsdef")
    for directory, program in itertools.product(("root/bin", "root/sbin", "path"), ("lsdef", "packimage")):
        if (directory, program) in (("root/bin", "packimage"), ("root/sbin", "lsdef"), ("path", "packimage")):
            continue
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        (tmp_path / directory / program).write_text("#!/bin/sh\n")
        (tmp_path / directory / program).chmod(0o755)
    assert programs.program("lsdef") == str(tmp_path / "path/lsdef")
    assert programs.program("packimage") == str(tmp_path / "root/sbin/packimage")
    path = programs.bypass()["PATH"].split(os.pathsep)
    assert path[:2] == [str(tmp_path / "root/bin"), str(tmp_path / "root/sbin")]
    assert programs.bypass()["XCATBYPASS"] == "1"

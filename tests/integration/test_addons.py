"""Add-ons: built on an overlay, stored, packed, and applied on a node by avsaddons."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from integration.conftest import GID, UID
from integration.harness import PROFILE, Installation, difference, look, output

pytestmark = pytest.mark.slow

AVSADDONS = Path(__file__).resolve().parents[2] / "share/xcat/avs/avsaddons"
SHELLS = [["dash"], ["busybox", "sh"]]
# Every kind of change. What it makes, as a whole, is copied to where KEEP names.
CHANGES = '''"""Changes of every kind"""
import os, shutil, subprocess
OPTIONS = {"keep": ("", "where to copy the whole image to")}
def run(ctx):
    root = str(ctx.root)
    def at(name): return os.path.join(root, name)
    def write(name, text, mode=0o644):
        os.makedirs(os.path.dirname(at(name)), exist_ok=True)
        with open(at(name), "w") as stream: stream.write(text)
        os.chmod(at(name), mode)
    ctx.chroot(["/bin/true"], check=False)
    write("opt/new dir/zażółć 日本", "new", 0o640)              # added
    os.chown(at("opt/new dir"), {UID}, {GID})
    write("usr/share/at@rev", "changed\\n")                      # changed
    os.chmod(at("usr/bin/wall"), 0o700)                          # metadata alone
    os.utime(at("usr/share/zero"), (1, 1))                       # time alone
    os.chown(at("etc/dangling"), 0, 0, follow_symlinks=False)
    for name in ("usr/share/q?*[x]", "usr/share/it's \\"quoted\\"", "usr/share/back\\\\slash", "usr/share/-dash",
                 "usr/share/a b  c", "usr/share/tail\\n", "usr/share/percent%s"):
        os.unlink(at(name))                                      # removed
    os.unlink(at("etc/mtab"))
    shutil.rmtree(at("usr/share/gone"))
    shutil.rmtree(at("usr/share/replaced"))                      # replaced as a whole
    write("usr/share/replaced/kept", "new one\\n")
    os.unlink(at("usr/share/file to dir")); write("usr/share/file to dir/x", "x")
    shutil.rmtree(at("usr/share/dir to file")); write("usr/share/dir to file", "y")
    os.unlink(at("usr/share/link to dir")); write("usr/share/link to dir/z", "z")
    os.unlink(at("usr/share/file to link")); os.symlink("zero", at("usr/share/file to link"))
    write("usr/lib/first", "the same file")                      # hard links
    os.link(at("usr/lib/first"), at("usr/lib/second"))
    os.link(at("usr/share/old"), at("usr/share/old.link"))
    with open(at("usr/share/#hash"), "r+b"): pass                # copied up, and not changed
    os.utime(at("usr/share/same"), ns=(os.stat(at("usr/share/same")).st_mtime_ns,) * 2)
    os.chmod(at("home/unknown"), os.stat(at("home/unknown")).st_mode)
    subprocess.run(["setfattr", "-n", "user.note", "-v", "a b", at("usr/lib/first")], check=True)
    write("usr/bin/capable", "x", 0o755)
    subprocess.run(["setcap", "cap_net_raw,cap_sys_admin+ep", at("usr/bin/capable")], check=True)
    write("var/cache/apt/archives/x.deb", "x")
    write("tmp/left", "x")
    if ctx.options["keep"]:
        subprocess.run(["rsync", "-aHAX", root + "/", ctx.options["keep"]], check=True)
'''.replace("{UID}", str(UID)).replace("{GID}", str(GID))


def prepare(source: Path) -> None:
    """More of what the add-on changes."""
    share = source / "rootimg/usr/share"
    for name in ("gone/deep/below", "replaced/old", "replaced/sub/old", "dir to file/x"):
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).write_text(f"{name}\n")
    for name in ("file to dir", "file to link", "same", "old", "tail\n", "percent%s"):
        (share / name).write_text(f"{name}\n")
    (share / "link to dir").symlink_to("replaced")
    (source / "rootimg/usr/lib").mkdir()
    for directory, names, files in os.walk(source, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(directory, name), ns=(10**18 + 7_000, 10**18 + 7_000), follow_symlinks=False)


def addon(installation: Installation, name: str, text: str) -> None:
    installation.site_file(f"addons/common/{name}.py", text)


def recipe(installation: Installation, *names: str, more: str = "") -> None:
    installation.recipe("prepare_image_directory", "generate_image", more=f"addons = {', '.join(names)}\n{more}")


def rsync_differences(one: Path, other: Path, *options: str) -> list[str]:
    """What rsync would do to make a tree of the other one; nothing where they are the same."""
    listing = output(["rsync", "-aHAXni", "--checksum", "--delete", *options, f"{one}/", f"{other}/"])
    return [line for line in listing.splitlines() if line]


def apply(root: Path, url: Path, *names: str, shell: list[str], code: int = 0, **environment: str) -> str:
    env = {"PATH": os.environ["PATH"], "AVS_ADDONS_ROOT": str(root), "AVS_ADDONS_URL": f"file://{url}", **environment}
    done = subprocess.run(
        [*shell, str(AVSADDONS), *names], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_from_procedure_to_node(installation: Installation, source: Path, tmp_path: Path, shell: list[str]) -> None:
    prepare(source)
    keep = tmp_path / "merged"
    addon(installation, "changes", CHANGES)
    recipe(installation, "changes", more=f"[addon changes]\nkeep = {keep}\n")
    before = look(source)
    document = installation.create(source, "--json").document
    assert difference(before, look(source)) == {}
    stored = installation.tree() / "addons/changes"
    assert difference(look(source / "rootimg"), look(installation.tree() / "rootimg")) == {}, "the base was changed"
    assert sorted(path.name for path in stored.iterdir()) == ["packages", "removed", "rootimg"]
    present = set(look(stored / "rootimg"))
    assert {
        "usr/share/#hash",
        "usr/share/same",
        "home/unknown",
        "var/cache/apt/archives/x.deb",
        "tmp/left",
    } & present == set()
    assert {"usr/bin/wall", "usr/share/old", "usr/share/old.link", "opt/new dir/zażółć 日本"} < present
    attributes = output(["getfattr", "-R", "-h", "-d", "-m", "-", str(stored)])
    assert "trusted.overlay" not in attributes
    removed = (stored / "removed").read_text().splitlines()
    assert r"usr/share/a\0040b\0040\0040c" in removed
    assert "usr/share/replaced" in removed
    assert not any("usr/share/gone/" in line for line in removed)
    row = document["addons"][0]
    assert (row["name"], row["removed"]) == ("changes", len(removed))
    assert row["bytes"] < 1000

    installation.run("tag", PROFILE, "-t", "t1")
    node = installation.checkout(tmp_path / "node", "t1")
    assert difference(look(stored), look(tmp_path / "node/addons/changes")) == {}
    text = installation.run("pack", PROFILE, "-t", "t1").stdout
    assert re.search(r"Add-ons, for the postscript avsaddons: changes \([1-9]K\)", text)
    served = installation.served() / "addons"
    assert stat.S_IMODE(served.stat().st_mode) == 0o755
    assert [stat.S_IMODE((served / name).stat().st_mode) for name in sorted(os.listdir(served))] == [0o644, 0o644]
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=served, check=True, timeout=60)
    record = json.loads((installation.served() / "avs.json").read_text())
    assert {"addons/SHA256SUMS", "addons/changes.cpio.gz"} < record["files"].keys()
    assert "already" in installation.run("pack", PROFILE, "-t", "t1").stdout
    installation.run("verify", PROFILE)

    (node / "etc/avs-release").write_text(f"AVS_SOURCE='{record['source']}'\nAVS_TAG='t1'\n")
    os.utime(node / "etc", ns=(10**18 + 7_000, 10**18 + 7_000))
    apply(node, served, "changes", shell=shell)
    assert (node / "var/lib/avs-addons/changes").is_file()
    skipped = ("/var/lib", "/etc/avs-release", "/var/cache", "/tmp/left")
    found = rsync_differences(keep, node, *(f"--exclude={path}" for path in skipped))
    # cpio sets no times of links, and leaves the root itself alone. That of busybox makes hard links last, and so
    # changes the time of their directories.
    assert [line for line in found if not line.startswith((".L..t...... ", ".d..t...... "))] == []
    links = {"./", "var/", "tmp/", "usr/share/file to link", "etc/dangling"}
    assert {line[12:].split(" -> ")[0] for line in found} <= links or shell[0] == "busybox"
    assert "there already" in apply(node, served, "changes", shell=shell)
    installation.assert_clean()


SMALL = '"""A file"""\nOPTIONS = {"text": ("one", "what is in it")}\ndef run(ctx):\n    ctx.install_file(ctx.options["text"], "etc/%s")\n'
FAILING = '"""Fails"""\ndef run(ctx):\n    ctx.install_file("x", "etc/half")\n    ctx.run(["sh", "-c", "echo this is why; exit 3"])\n'


def test_report_and_what_it_was_built_from(installation: Installation, source: Path) -> None:
    addon(installation, "small", SMALL % "small")
    recipe(installation, "small", more="[addon small]\ntext = two\n")
    text = installation.create(source).stdout
    rows = [line.split() for line in text.splitlines()]
    assert ["ADD-ON", "NAME", "TIME", "+/-", "RPMS", "SIZE", "PATHS", "REMOVED"] in rows
    assert ["small", "0s", "+0", "-0", "0K", "2", "0"] in rows
    info = installation.tree() / "build_info"
    assert json.loads((info / "addons.json").read_text())[0]["name"] == "small"
    assert "installed etc/small" in (info / "logs/addon-small.log").read_text()
    assert (info / "inputs/addons/site.common/small.py").read_text() == SMALL % "small"
    assert "[addon small]" in (info / "inputs/recipe.conf").read_text()
    assert "small" in installation.run("steps", PROFILE).stdout
    assert installation.create(source, "--json").document["changed"] is False


def test_a_failing_one_fails_the_create(installation: Installation, source: Path) -> None:
    addon(installation, "small", SMALL % "small")
    addon(installation, "failing", FAILING)
    recipe(installation, "small", "failing")
    result = installation.create(source, code=1)
    assert "add-on failing failed: sh failed with exit code 3" in result.error
    assert "this is why" in result.error
    assert "nothing was committed" in result.error
    assert "generate_image" in result.stdout
    assert installation.youngest() == 1, "the layout, and nothing else"
    assert not (installation.tree() / "rootimg/etc/half").exists()
    installation.assert_clean()

    addon(installation, "failing", SMALL % "fixed")
    said = installation.create(source, "-b").stderr
    assert "generate_image: done before" in said
    assert "add-on small: built before, not repeated" in said
    assert "add-on failing: built" not in said
    assert (installation.tree() / "addons/failing/rootimg/etc/fixed").read_text() == "one"


def test_resume_repeats_what_changed(installation: Installation, source: Path) -> None:
    for name in ("small", "other", "gone"):
        addon(installation, name, SMALL % name)
    recipe(installation, "small", "other", "gone")
    installation.create(source)
    recipe(installation, "small", "other", more="[addon other]\ntext = changed\n")
    said = installation.create(source, "-b").stderr
    assert "add-on small: built before" in said
    assert "add-on other: built before" not in said
    assert (installation.tree() / "addons/other/rootimg/etc/other").read_text() == "changed"
    assert sorted(os.listdir(installation.tree() / "addons")) == ["other", "small"]
    # A step before them: all anew.
    installation.recipe("prepare_image_directory", "generate_image", "cleanup", more="addons = small\n")
    assert "add-on small: built before" not in installation.create(source, "-b").stderr


def test_base_image_only(installation: Installation, source: Path) -> None:
    addon(installation, "failing", FAILING)
    recipe(installation, "failing")
    document = installation.create(source, "-n", "--json").document
    assert document["addons"] == []
    assert not (installation.tree() / "addons").exists()
    addon(installation, "failing", SMALL % "x")
    assert installation.create(source, "-b", "--json").document["addons"] != []
    assert installation.create(source, "-b", "-n", "--json").document["changed"] is True
    assert not (installation.tree() / "addons").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '"""x"""\ndef run(ctx):\n    (ctx.paths.tree / "kernel").write_text("x")\n',
            "it wrote kernel beside the root",
        ),
        ('"""x"""\ndef run(ctx):\n    raise KeyError("no such")\n', "KeyError: 'no such'"),
        (
            '"""x"""\ndef run(ctx):\n    ctx.run(["mount", "-t", "tmpfs", "none", str(ctx.root / "home")])\n',
            "it left mounts behind",
        ),
    ],
)
def test_what_an_addon_must_not(installation: Installation, source: Path, text: str, words: str) -> None:
    addon(installation, "bad", text)
    recipe(installation, "bad")
    assert words in installation.create(source, code=1).error
    installation.assert_clean()


def test_exclude_of_a_recipe(installation: Installation, source: Path) -> None:
    addon(installation, "small", '"""x"""\ndef run(ctx):\n    ctx.install_file("x", "opt/a/b")\n    ctx.install_file("x", "opt/c")\n'
          '    ctx.install_file("x", "tmp/kept")\n')  # fmt: skip
    recipe(installation, "small", more="[addon small]\nexclude = opt/a, **/c\n")
    installation.create(source)
    root = installation.tree() / "addons/small/rootimg"
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["opt", "opt/a", "tmp", "tmp/kept"]


def test_an_executable(installation: Installation, source: Path) -> None:
    installation.site_file(
        "addons/common/tool.sh", '#!/bin/sh\n# A tool\necho "$AVS_PROFILE" >opt-file\nrm etc/mtab\n', 0o755
    )
    recipe(installation, "tool")
    installation.create(source)
    stored = installation.tree() / "addons/tool"
    assert (stored / "rootimg/opt-file").read_text() == f"{PROFILE}\n"
    assert (stored / "removed").read_text() == "etc/mtab\n"


def test_rollback_and_a_damaged_archive(installation: Installation, source: Path) -> None:
    addon(installation, "small", SMALL % "small")
    recipe(installation, "small")
    installation.create(source, "-f")
    first = (installation.served() / "addons/SHA256SUMS").read_text()
    recipe(installation, "small", more="[addon small]\ntext = two\n")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t2")
    installation.run("pack", PROFILE, "-t", "t2")
    assert (installation.served() / "addons/SHA256SUMS").read_text() != first
    archive = installation.served() / "addons/small.cpio.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    assert "addons/small.cpio.gz: changed since" in installation.run("verify", PROFILE, code=1).stdout
    assert "already" not in installation.run("pack", PROFILE, "-t", "t2").stdout, "a damaged set is packed again"
    installation.run("verify", PROFILE)
    installation.run("rollback", PROFILE)
    assert (installation.served() / "addons/SHA256SUMS").read_text() == first


def test_where_no_overlay_can_be_on_the_disk(installation: Installation, source: Path, tmp_path: Path) -> None:
    """As in a container whose root is an overlay: the upper directory is in memory, and what it has is copied."""
    prepare(source)
    addon(installation, "changes", CHANGES)
    recipe(installation, "changes")
    (tmp_path / "o").mkdir()
    script = (
        'mount -t tmpfs none "$2" && mkdir "$2/u" "$2/w" && mount -t overlay -o "lowerdir=$1,upperdir=$2/u,workdir=$2/w" none "$1" && '
        'top=$1 && shift 2 && "$@" && cp -a "$top/builds" "$KEEP"'
    )
    installation.state.mkdir()
    keep = tmp_path / "kept"
    prefix = [
        "unshare",
        "--mount",
        "env",
        f"KEEP={keep}",
        "sh",
        "-c",
        script,
        "sh",
        str(installation.state),
        str(tmp_path / "o"),
    ]
    installation.run("create", PROFILE, "--from", str(source), prefix=prefix)
    stored = keep / installation.tree().relative_to(installation.state / "builds") / "addons/changes"
    installation.create(source)
    assert difference(look(installation.tree() / "addons/changes", times=False), look(stored, times=False)) == {}

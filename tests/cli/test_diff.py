"""diff and log, on real stores: of avsimage, and of avs_image_mgr, whose versions have no manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rpmrepo

from xcat_avs.tree import packages
from xcat_avs.tree.packages import Package, PackageList

from .conftest import PROD, Answer, Installation

STORE_PATH = "netboot/debian12/x86_64/example.prod"
CAP_NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
LATIN = "etc/caf\udce9"  # a name that is not UTF-8, which FSVS does not take
HOSTILE = f"{LATIN}\n  removed  x\x1b[2J\u202e"
STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"


def dpkg_status(**versions: str) -> str:
    return "".join(STATUS.format(name, version) for name, version in versions.items())


def run(*argv: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    done = subprocess.run(argv, cwd=cwd, env=environment, input=stdin.encode(), capture_output=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr.decode()}"
    return done.stdout.decode()


def good(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    assert answer.err == ""
    return answer.out


def document(answer: Answer) -> dict[str, Any]:
    found = json.loads(good(answer))
    assert isinstance(found, dict)
    return found


def refused(answer: Answer, *words: str) -> None:
    assert answer.code == 1
    for word in words:
        assert word in answer.error


def set_attribute(avs: Installation, line: str) -> None:
    """Put a line into the definition of example.prod."""
    path = avs.top / "images.stanza"
    path.write_text(path.read_text().replace("    osname=Linux\n", f"    osname=Linux\n    {line}\n", 1))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with two versions of an image, v1 and v2, and a third that no tag holds. Not to be changed."""
    avs = Installation.make(tmp_path_factory.mktemp("two"))
    avs.tree()
    root = avs.top / "source/rootimg"
    avs.put("source/rootimg/var/lib/dpkg/status", dpkg_status(bash="5.2.15-9", gone="1-1", libc6="2.36-9"))
    avs.put("source/rootimg/boot/vmlinuz-6.1.0-25-amd64", "the old kernel")
    avs.put("source/rootimg/usr/bin/sudo", "#!", 0o4755)
    avs.put("source/rootimg/usr/bin/ping", "#!", 0o755)
    for number in range(60):
        avs.put(f"source/rootimg/usr/share/many/{number:02d}", "old")
    good_build(avs, "the first", "v1")
    avs.put("source/rootimg/var/lib/dpkg/status", dpkg_status(bash="5.2.15-10", fresh="1:2-1", libc6="2.36-8"))
    (root / "boot/vmlinuz-6.1.0-25-amd64").unlink()
    avs.put("source/rootimg/boot/vmlinuz-6.1.0-26-amd64", "the new kernel")
    avs.put("source/rootimg/etc/passwd", "root:x:0:0::/root:/bin/bash\nme:x:1:1::/:/bin/sh")
    avs.put("source/rootimg/etc/an @ü name", "x")
    (root / "usr/bin/sudo").chmod(0o755)
    os.chown(avs.put("source/rootimg/usr/bin/su", "#!"), 0, 42)
    (root / "usr/bin/su").chmod(0o2755)
    (root / "bin").unlink()
    (root / "bin").symlink_to("usr/sbin")
    os.chown(root / "home/.keep", 5, 6)
    os.setxattr(avs.put("source/rootimg/usr/bin/ping", "#!", 0o755), "security.capability", CAP_NET_RAW)
    os.utime(root / "etc/hostname", (1, 1))
    for number in range(60):
        avs.put(f"source/rootimg/usr/share/many/{number:02d}", "new")
    avs.put("source/kernel", "\0" * 3 * 2**20)
    avs.put("install/custom/example.pkglist", "bash\nfresh\n")
    avs.put("install/custom/example.exlist", "/usr/share/man*\n")
    avs.put(
        "install/custom/avs/recipes/default.conf", "[recipe]\nsteps = prepare_image_directory, generate_image, mine\n"
    )
    avs.put("install/custom/avs/procedures/common/mine.sh", "#!/bin/sh\n", 0o755)
    set_attribute(avs, f"exlist={avs.install}/custom/example.exlist")
    good_build(avs, "the second", "v2")
    avs.put("source/rootimg/etc/hostname", "edon\n")
    good_build(avs, "the third\nand more", "")
    return avs


def good_build(avs: Installation, message: str, tag: str) -> None:
    answer = avs.create("-m", message)
    assert answer.code == 0, answer.err
    if tag:
        good(avs("-c", "tag", "example.prod", "-t", tag))


@pytest.mark.slow
def test_report(two: Installation) -> None:
    out = good(two("-c", "diff", "example.prod", "-t", "v1:v2"))
    parts = [
        "     TAG  REVISION  DATE ", "\nold  v1   ", "\nnew  v2   ",
        "\nPackages: 1 added, 1 removed, 1 upgraded, 1 downgraded\n",
        "\nPACKAGE      OLD       NEW        CHANGE\n"
        "bash:amd64   5.2.15-9  5.2.15-10  upgraded\n"
        "fresh:amd64  -         1:2-1      added\n"
        "gone:amd64   1-1       -          removed\n"
        "libc6:amd64  2.36-9    2.36-8     downgraded\n",
        "\n*** LOOK: setuid, setgid or capabilities of 3 files ***\n",
        "\nFILE           OLD       NEW\n/usr/bin/ping  -         cap_net_raw=ep\n/usr/bin/su    -         setgid 42\n/usr/bin/sudo  setuid 0  -\n",
        "\nKernel: 6.1.0-25-amd64 -> 6.1.0-26-amd64\n",
        f"\nATTRIBUTE  OLD  NEW\nexlist     -    {two.install}/custom/example.exlist\n",
        "\nWhat it was built from:\n",
        f"\n  added    file {two.install}/custom/example.exlist\n  changed  file {two.install}/custom/example.pkglist\n",
        "\n  removed  procedure shipped.common/build_prep.py\n", "\n  added    procedure site.common/mine.sh\n",
        "\n  changed  recipe recipe.conf\n",
        "\nFiles: 4 added, 1 removed, ", "\n  changed  kernel: content\n", "\n  changed  /bin: link usr/bin -> usr/sbin\n",
        "\n  removed  /boot/vmlinuz-6.1.0-25-amd64\n  added    /boot/vmlinuz-6.1.0-26-amd64\n",
        "\n  added    /etc/an @ü name\n  changed  /etc/passwd: content\n",
        "\n  changed  /home/.keep: owner 0:0 -> 5:6\n",
        "\n  changed  /usr/bin/ping: capabilities\n",
        "\n  changed  /usr/bin/sudo: mode 4755 -> 0755\n",
        " more; --files lists all, --match PATTERN some, --content one\n",
        "\nSIZE OF  ", "\nkernel                0K   3M   3M\n", "\nTOTAL  ",
    ]  # fmt: skip
    positions = [out.find(part) for part in parts]
    assert -1 not in positions, parts[positions.index(-1)] + out
    assert positions == sorted(positions)
    files = out[out.index("\nFiles: ") : out.index("\nSIZE OF")].strip().split("\n")
    assert len(files) == 1 + 40 + 1
    assert "manifest" not in out
    assert "etc/hostname" not in out, "a time is no difference"
    assert "steps.json" not in out


@pytest.mark.slow
def test_what_is_left_out_of_the_report_is_counted(two: Installation) -> None:
    out = good(two("-c", "diff", "example.prod", "-t", "v1:v2"))
    counted = sum(int(word.split()[0]) for word in out.split("\nFiles: ")[1].split("\n")[0].split(", "))
    everything = good(two("-c", "diff", "example.prod", "-t", "v1:v2", "--files"))
    lines = [line for line in everything.split("\nFiles: ")[1].split("\n")[1:] if line]
    assert len(lines) == counted > 60
    assert f"and {counted - 40} more;" in out
    assert "more;" not in everything
    assert everything.index("*** LOOK") < everything.index("Files:")
    assert "Packages:" not in everything
    assert "SIZE OF" not in everything


@pytest.mark.slow
def test_json(two: Installation) -> None:
    found = document(two("-c", "diff", "example.prod", "-t", "v1:v2", "--json"))
    tags = {tag["name"]: tag for tag in document(two("-c", "list-tags", "example.prod", "--json"))["tags"]}
    for side, name in (("old", "v1"), ("new", "v2")):
        tag = tags[name]
        wanted = {"tag": name, "revision": tag["source"], "date": tag["date"], "author": tag["author"]}
        assert found[side] == wanted
    assert (found["osimage"], found["identical"], found["manifests"]) == (PROD, False, {"old": True, "new": True})
    listed = found["packages"]
    assert (listed["kind"], listed["old"], listed["new"]) == ("deb", 3, 3)
    fresh = {"name": "fresh", "epoch": 1, "version": "2", "release": "1", "arch": "amd64"}
    assert listed["added"] == [fresh]
    assert [item["name"] for item in listed["removed"]] == ["gone"]
    assert [(item["old"]["release"], item["new"]["release"]) for item in listed["upgraded"]] == [("9", "10")]
    assert [item["new"]["name"] for item in listed["downgraded"]] == ["libc6"]
    assert found["privileges"] == [
        {"path": "/usr/bin/ping", "old": "", "new": "cap_net_raw=ep"},
        {"path": "/usr/bin/su", "old": "", "new": "setgid 42"}, {"path": "/usr/bin/sudo", "old": "setuid 0", "new": ""},
    ]  # fmt: skip
    assert found["kernels"] == {"old": ["6.1.0-25-amd64"], "new": ["6.1.0-26-amd64"]}
    assert found["attributes"] == [{"attribute": "exlist", "old": None, "new": f"{two.install}/custom/example.exlist"}]
    assert {"kind": "recipe", "path": "recipe.conf", "change": "changed"} in found["inputs"]
    assert found["sizes"]["kernel"] == {"old": 450, "new": 3 * 2**20}
    assert found["sizes"]["/boot"] == {"old": 14, "new": 14}
    files = {item["path"]: item for item in found["files"]}
    assert len([path for path in files if path.startswith("/usr/share/many/")]) == 60
    keep = files["/home/.keep"]
    assert (keep["change"], keep["facts"], keep["old"]["uid"], keep["new"]["uid"]) == ("changed", ["owner"], 0, 5)
    assert (files["/bin"]["facts"], files["/bin"]["new"]["link"]) == (["link"], "usr/sbin")
    assert (files["/usr/bin/su"]["old"], files["/usr/bin/su"]["new"]["mode"]) == (None, "2755")
    assert files["/usr/bin/ping"]["new"]["xattrs"] == {"security.capability": CAP_NET_RAW.hex()}
    assert not any(path.startswith("build_info") for path in files)


@pytest.mark.slow
def test_a_page_has_what_differs_from_the_tag_before(two: Installation, tmp_path: Path) -> None:
    """Of a real store, whose treemaps, history and rights it has as well."""
    pytest.importorskip("plotly")
    page = tmp_path / "page.html"
    words = good(two.here("-c", "show", "example.prod", "-t", "v2", "--html", str(page)))
    assert re.fullmatch(rf"Wrote {page} \(\d+M\): a page on \S+ tag v2\n", words)
    text = page.read_text(encoding="utf-8")
    assert "<h2>Changes since tag v1</h2>" in text
    assert "Packages: 1 added, 1 downgraded, 1 removed, 1 upgraded" in text
    assert "<td>bash:amd64</td><td>5.2.15-9</td><td>5.2.15-10</td><td>upgraded</td>" in text
    assert 'id="directories-data"' in text
    assert 'id="history-data"' in text
    assert "Its package database says no sizes." in text
    good(two.here("-c", "show", "example.prod", "--html", str(page)))
    assert "<h2>Changes since tag v2</h2>" in page.read_text(encoding="utf-8")
    first = good(two.here("-c", "show", "example.prod", "-t", "v1", "--html", str(page), "--json"))
    assert json.loads(first)["html"] == str(page)
    assert "There is no tag before this version." in page.read_text(encoding="utf-8")
    mine = tmp_path / "mine"
    mine.write_text("precious", encoding="utf-8")
    refused(two.here("-c", "show", "example.prod", "--html", str(mine)), "is no page of avsimage; it was left as it is")
    assert mine.read_text(encoding="utf-8") == "precious"


@pytest.mark.slow
def test_parts_of_the_document(two: Installation) -> None:
    common = {"osimage", "old", "new"}
    line = ("-c", "diff", "example.prod", "-t", "v1:v2", "--json")
    assert document(two(*line, "--packages")).keys() == common | {"packages"}
    found = document(two(*line, "--files", "/etc/*"))
    assert found.keys() == common | {"manifests", "privileges", "files"}
    assert [item["path"] for item in found["files"]] == ["/etc/an @ü name", "/etc/passwd"]
    assert document(two(*line, "--packages", "--files")).keys() == common | {
        "packages",
        "manifests",
        "privileges",
        "files",
    }


@pytest.mark.slow
def test_only_packages(two: Installation) -> None:
    out = good(two("-c", "diff", "example.prod", "-t", "v1:v2", "--packages"))
    assert "bash:amd64" in out
    assert "Files" not in out
    out = good(two("-c", "diff", "example.prod", "-t", "v2", "--packages"))
    assert "Packages: 0 added, 0 removed, 0 upgraded, 0 downgraded" in out


@pytest.mark.slow
def test_files_takes_a_pattern_as_before(two: Installation) -> None:
    everything = good(two("-c", "diff", "example.prod", "-t", "v1:v2", "--files"))
    assert good(two("-c", "diff", "-t", "v1:v2", "--files", "example.prod")) == everything
    assert good(two("-c", "diff", "--files", "-t", "v1:v2", "example.prod")) == everything
    assert good(two("-c", "diff", "-t", "v1:v2", "-p", "example.prod", "--files")) == everything
    some = good(two("-c", "diff", "-t", "v1:v2", "--files", "/etc/*", "example.prod"))
    assert "/etc/passwd" in some
    assert "/usr/bin" not in some
    for line in (
        ("--match", "/etc/*", "example.prod"),
        ("--files", "--match=/etc/*", "example.prod"),
        ("--files", "/etc/*", "-p", "example.prod"),
        ("--files=/etc/*", "example.prod"),
        ("--files", "/etc/*", "--", "example.prod"),
    ):
        assert good(two("-c", "diff", "-t", "v1:v2", *line)) == some
    assert "No file that differs matches '/nowhere/*'" in good(
        two("-c", "diff", "example.prod", "-t", "v1:v2", "--files", "/nowhere/*")
    )


@pytest.mark.slow
def test_a_missing_second_version_means_the_newest(two: Installation) -> None:
    numbers = [item["number"] for item in document(two("-c", "log", "example.prod", "--json"))["revisions"]]
    newest, second, first = numbers
    for text in ("v2", "v2:"):
        found = document(two("-c", "diff", "example.prod", "-t", text, "--json"))
        assert (found["new"]["tag"], found["new"]["revision"]) == ("", newest)
        assert [item["path"] for item in found["files"]] == ["/etc/hostname"]
    for text in (f"{second}", f"r{second}:", f"{second}:{newest}"):
        found = document(two("-c", "diff", "example.prod", "-r", text, "--json"))
        assert [side["revision"] for side in (found["old"], found["new"])] == [second, newest]
        assert (found["old"]["tag"], found["attributes"], found["inputs"]) == ("", [], [])
        assert [item["path"] for item in found["files"]] == ["/etc/hostname"]
    back = document(two("-c", "diff", "example.prod", "-r", f"{second}:{first}", "--json"))
    assert [item["name"] for item in back["packages"]["removed"]] == ["fresh"]


@pytest.mark.slow
def test_identical_versions(two: Installation) -> None:
    out = good(two("-c", "diff", "example.prod", "-t", "v1:v1"))
    assert "No differences: tag v1 and tag v1 hold the same packages, files and definition." in out
    assert "Files" not in out
    assert "Packages:" not in out
    assert document(two("-c", "diff", "example.prod", "-t", "v1:v1", "--json"))["identical"] is True


@pytest.mark.slow
def test_content_of_a_text(two: Installation) -> None:
    wanted = (
        "--- /etc/passwd (tag v1)\n+++ /etc/passwd (tag v2)\n@@ -1 +1,2 @@\n-root:x:0:0::/root:/bin/sh\n"
        "+root:x:0:0::/root:/bin/bash\n+me:x:1:1::/:/bin/sh\n\\ No newline at end of file\n"
    )
    line = ("-c", "diff", "example.prod", "-t", "v1:v2", "--content")
    assert good(two(*line, "/etc/passwd")) == wanted
    found = document(two(*line, "/etc/passwd", "--json"))
    assert found["diff"] == wanted
    assert (found["path"], found["identical"], found["content"]["old"]["size"]) == ("/etc/passwd", False, 26)
    assert good(two(*line, "/etc/an @ü name")).startswith(
        "--- /dev/null\n+++ /etc/an @ü name (tag v2)\n@@ -0,0 +1 @@\n+x\n"
    )
    assert "-steps = " in good(two(*line, "build_info/inputs/recipe.conf"))
    assert "-link usr/bin\n" in good(two(*line, "/bin"))


@pytest.mark.slow
def test_a_hostile_name_and_its_content(built: Installation) -> None:
    """A line a file, escaped; only the content goes into a pipe as it is, and on a terminal not even that."""
    for name in (LATIN, HOSTILE):
        (built.top / "source/rootimg" / name).write_text("\x1b]0;title\x07\n")
    good_build(built, "hostile", "")
    line = ("-c", "diff", "example.prod", "-r", "2:")
    text = good(built(*line))
    assert "\nFiles: 2 added, 0 removed, 0 changed\n" in text
    assert "\n  added    /etc/caf\\xe9\n  added    /etc/caf\\xe9\\n  removed  x\\x1b[2J\\u202e\n" in text
    assert {item["path"] for item in document(built(*line, "--json"))["files"]} == {f"/{HOSTILE}", f"/{LATIN}"}
    assert "+\x1b]0;title\x07\n" in good(built(*line, "--content", f"/{LATIN}"))
    master, slave = os.openpty()
    words = [sys.executable, "-m", "xcat_avs", *line, "--content", f"/{LATIN}"]
    subprocess.run(words, env=built.environment(), stdout=slave, check=True)
    os.close(slave)
    shown = os.read(master, 65536)
    os.close(master)
    assert b"+++ /etc/caf\\xe9 (revision 4)" in shown
    assert b"+\\x1b]0;title\\x07" in shown
    assert b"\x1b" not in shown


@pytest.mark.slow
def test_content_of_what_is_no_text_or_the_same_or_nowhere(two: Installation) -> None:
    line = ("-c", "diff", "example.prod", "-t", "v1:v2", "--content")
    out = good(two(*line, "kernel"))
    assert "kernel is no text" in out
    assert "old      450  " in out
    assert f"new  {3 * 2**20}  " in out
    assert document(two(*line, "kernel", "--json"))["diff"] is None
    assert "/etc/hostname is the same in both: 5 bytes, SHA-256 " in good(two(*line, "/etc/hostname"))
    for path in ("/etc/nothing", "etc/passwd", "/etc", "/", "../v2/kernel", "rootimg/../../v1"):
        refused(two(*line, path), f"neither tag v1 nor tag v2 has a file {path!r}", PROD)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["-t OLD:[NEW] or by -r OLD:[NEW]", "exactly one"]),
        (["-t", "a:b", "-r", "1:2"], ["exactly one"]),
        (["-t", ":b"], ["-t ':b' is not of the form OLD:NEW"]),
        (["-t", ":"], ["not of the form"]),
        (["-t", "a:b:c"], ["not of the form"]),
        (["-r", ":2"], ["-r ':2' is not of the form OLD:NEW"]),
        (["-r", "x:2"], ["-r 'x' is no revision number"]),
        (["-t", "a", "--files", "x", "--match", "y"], ["--match is given 2 times"]),
        (["-t", "a", "--files="], ["empty value for --match"]),
        (["-t", "a", "--match", ""], ["empty value for --match"]),
        (["-t", "a", "--content", "/x", "--packages"], ["without --packages and --files"]),
        (["-t", "a", "--content", "/x", "--files"], ["without --packages and --files"]),
        (["-t", "a", "--content", "/x", "--content", "/y"], ["--content is given 2 times"]),
        (["-t", "a", "-m", "x"], ["mode diff takes no -m"]),
        (["-t", "a", "x", "y"], ["unexpected argument 'x'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(avs: Installation, argv: list[str], words: list[str]) -> None:
    answer = avs.here("-c", "diff", "example.prod", *argv)
    refused(answer, *words, "; see avsimage -c diff -h")
    assert answer.out == ""


def test_other_modes_take_no_option_of_diff(avs: Installation) -> None:
    for flag in (["--files"], ["--files", "x"], ["--match", "x"], ["--packages"], ["--content", "x"]):
        refused(avs.here("-c", "show", "example.prod", *flag), f"mode show takes no {flag[0]}")
    refused(avs.here("-c", "log", "example.prod", "-r", "1"), "mode log takes no -r")
    # The value of another option is no option.
    refused(avs.here("-c", "tag", "example.prod", "-m", "--files", "-t", "a b"), "tag name 'a b'")


def test_usage(avs: Installation) -> None:
    out = good(avs.here("-c", "diff", "-h"))
    for words in (
        "\n  -t|--tag OLD:[NEW]       two tags",
        "\n  -r|--revision OLD:[NEW]  ",
        "\n  --files                  only",
        "\n  --match PATTERN          only",
        "\n  --content PATH  ",
    ):
        assert words in out


def test_versions_that_are_not_there(avs: Installation) -> None:
    run("svnadmin", "create", "repo", cwd=avs.top)
    refused(avs("-c", "diff", "example.prod", "-t", "v1"), "has no tag 'v1'")
    refused(avs("-c", "diff", "example.prod", "-r", "7"), "has no revision 7")
    assert good(avs("-c", "log", "example.prod")) == "(no revisions found)\n"
    assert document(avs("-c", "log", "example.prod", "--json")) == {"osimage": PROD, "revisions": []}


@pytest.mark.slow
def test_a_tag_that_is_not_there(two: Installation) -> None:
    refused(two("-c", "diff", "example.prod", "-t", "v1:v3"), "has no tag 'v3'", "did you mean")


# The history.


@pytest.mark.slow
def test_log(two: Installation) -> None:
    lines = good(two("-c", "log", "example.prod")).split("\n")
    assert lines[0].split() == ["REVISION", "DATE", "AUTHOR", "PACKAGES", "SIZE", "TAGS", "MESSAGE"]
    cells = [re.split(r" {2,}", line.strip()) for line in lines[1:-1]]
    assert [row[-2:] for row in cells] == [["-", "the third and more"], ["v2", "the second"], ["v1", "the first"]]
    found = document(two("-c", "log", "example.prod", "--json"))["revisions"]
    assert [item["tags"] for item in found] == [[], ["v2"], ["v1"]]
    shown = document(two("-c", "show", "example.prod", "-t", "v2", "--json"))["revision"]
    assert {key: found[1][key] for key in shown} == shown


@dataclass
class Classic:
    """A store as avs_image_mgr makes and fills it, by the commands that it ran."""

    avs: Installation
    tree: Path

    @property
    def url(self) -> str:
        return f"file://{self.avs.top}/repo/{STORE_PATH}"

    @classmethod
    def make(cls, avs: Installation) -> Classic:
        made = cls(avs, avs.top / "image")
        run("svnadmin", "create", str(avs.top / "repo"), cwd=avs.top)
        urls = [f"{made.url}/{name}" for name in ("trunk", "tags", "branches")]
        run("svn", "mkdir", "-q", "--parents", "-m", "layout", *urls, cwd=avs.top)
        for name in ("fsvs.conf", "waa", "checkout"):
            (avs.top / name).mkdir()
        made.fsvs("urls", "load", stdin=f"{made.url}/trunk\n")
        made.fsvs("checkout", f"{made.url}/trunk", ".")
        return made

    def fsvs(self, *argv: str, stdin: str = "") -> str:
        env = {"FSVS_CONF": str(self.avs.top / "fsvs.conf"), "FSVS_WAA": str(self.avs.top / "waa")}
        return run("fsvs", *argv, cwd=self.avs.top / "checkout", env=env, stdin=stdin)

    def commit(self, message: str) -> None:
        run("rsync", "-crlpgoDS", "--delete", f"{self.tree}/", "./", cwd=self.avs.top / "checkout")
        self.fsvs("-C", "-o", "empty_commit=no", "ci", "-m", message)

    def tag(self, name: str) -> None:
        run("svn", "cp", "-q", "-m", f"tag {name}", f"{self.url}/trunk", f"{self.url}/tags/{name}", cwd=self.avs.top)

    def put(self, path: str, text: str, mode: int = 0o644) -> Path:
        return self.avs.put(f"image/{path}", text, mode)


@pytest.fixture
def classic(avs: Installation) -> Classic:
    """Two versions, old and new, without a manifest."""
    made = Classic.make(avs)
    made.put("kernel", "old")
    made.put("rootimg/etc/same", "same")
    made.put("rootimg/etc/mode", "x")
    made.put("rootimg/etc/gone @1 ü", "x")
    made.put("rootimg/etc/passwd", "root\n")
    made.put("rootimg/boot/vmlinuz-5.10", "x")
    made.put("rootimg/var/lib/dpkg/status", dpkg_status(bash="5.2.15-9", gone="1"))
    made.put("build_info/report", "old")
    made.commit("the first")
    made.tag("old")
    made.put("kernel", "a new one")  # FSVS would not see the same size of the same second
    made.put("rootimg/etc/mode", "x", 0o600)
    (made.tree / "rootimg/etc/gone @1 ü").unlink()
    made.put("rootimg/etc/fresh @2 ✓", "x")
    made.put("rootimg/etc/passwd", "root\nme\n")
    (made.tree / "rootimg/boot/vmlinuz-5.10").rename(made.tree / "rootimg/boot/vmlinuz-5.11")
    made.put("rootimg/var/lib/dpkg/status", dpkg_status(bash="5.2.15-10", fresh="1"))
    made.put("build_info/report", "new")
    made.commit("the second")
    made.tag("new")
    return made


@pytest.mark.slow
def test_versions_without_a_manifest(classic: Classic) -> None:
    out = good(classic.avs("-c", "diff", "example.prod", "-t", "old:new"))
    for words in (
        "Packages: 1 added, 1 removed, 1 upgraded, 0 downgraded", "Kernel: 5.10 -> 5.11", "  changed  kernel: content\n",
        "  removed  /etc/gone @1 ü\n", "  added    /etc/fresh @2 ✓\n", "  changed  /etc/mode: properties\n",
        "  changed  /etc/passwd: content\n", "Tag old has no manifest", "Tag new has no manifest", "sizes, setuid and capabilities are not known",
    ):  # fmt: skip
        assert words in out
    for words in ("/etc/same", "build_info", "SIZE OF", "LOOK"):
        assert words not in out
    found = document(classic.avs("-c", "diff", "example.prod", "-t", "old", "--json"))
    assert (found["manifests"], found["sizes"], found["new"]["tag"]) == ({"old": False, "new": False}, None, "")
    assert found["packages"]["kind"] == "deb"
    files = {item["path"]: item for item in found["files"]}
    assert files["/etc/mode"] == {
        "path": "/etc/mode",
        "change": "changed",
        "facts": ["properties"],
        "old": None,
        "new": None,
    }
    back = document(classic.avs("-c", "diff", "example.prod", "-t", "new:old", "--json"))
    assert {item["path"] for item in back["files"]} == files.keys()
    assert {item["path"] for item in back["files"] if item["change"] == "added"} == {
        path for path, item in files.items() if item["change"] == "removed"
    }
    text = good(classic.avs("-c", "diff", "example.prod", "-t", "old:new", "--content", "/etc/passwd"))
    assert text.endswith("@@ -1 +1,2 @@\n root\n+me\n")
    same = good(classic.avs("-c", "diff", "example.prod", "-t", "new"))
    assert "No differences: tag new and revision 4 hold the same" in same


@pytest.mark.slow
def test_one_side_with_a_manifest(classic: Classic) -> None:
    """The way from avs_image_mgr: its newest tag against the first build of avsimage."""
    avs = classic.avs
    shutil.rmtree(classic.tree / "build_info")
    answer = avs("-c", "create", "example.prod", "--from", str(classic.tree), "-m", "the third")
    assert answer.code == 0, answer.err
    found = document(avs("-c", "diff", "example.prod", "-t", "new", "--json"))
    assert (found["manifests"], found["sizes"], found["attributes"]) == ({"old": False, "new": True}, None, [])
    assert {"kind": "file", "path": f"{avs.install}/custom/example.pkglist", "change": "added"} in found["inputs"]
    assert not any(item["path"] == f"{avs.install}/custom" for item in found["inputs"])
    assert not any(item["path"].startswith("build_info") for item in found["files"])
    out = good(avs("-c", "diff", "example.prod", "-t", "new"))
    assert "Tag new has no manifest" in out
    assert "Revision" not in out
    # The history holds both, without the layout.
    revisions = document(avs("-c", "log", "example.prod", "--json"))["revisions"]
    assert [item["message"].split("\n")[-1] for item in revisions] == ["the third", "the second", "the first"]
    assert [item["tags"] for item in revisions] == [[], ["new"], ["old"]]


@pytest.mark.slow
@pytest.mark.parametrize("directory", packages.RPM_DATABASES)
def test_packages_of_an_rpm_database_in_the_store(avs: Installation, directory: str) -> None:
    """The database is a directory of the version; the image has no rpm."""
    classic = Classic.make(avs)
    extra = [rpmrepo.Package("grows", version=version) for version in ("1.9", "1.10")]
    built = [rpmrepo.build_repo(avs.top / f"rpms.{item.version}", [item]) for item in extra]
    for repository, item in zip(built, extra):
        database = classic.tree / "rootimg" / directory
        shutil.rmtree(database, ignore_errors=True)
        database.mkdir(parents=True)
        rpms = [str(next(repository.glob(f"{name}-*.rpm"))) for name in ("grows", "bash", "setup")]
        run(
            "rpm", "--dbpath", str(database), "--justdb", "--nodeps", "-i", *rpms[: 2 + (item is extra[0])], cwd=avs.top
        )
        if directory != "var/lib/rpm":
            (classic.tree / "rootimg/var/lib").mkdir(parents=True, exist_ok=True)
            link = classic.tree / "rootimg/var/lib/rpm"
            link.unlink(missing_ok=True)
            link.symlink_to("../../usr/lib/sysimage/rpm")
        classic.commit(item.version)
        classic.tag(item.version)
    out = good(avs("-c", "diff", "example.prod", "-t", "1.9:1.10", "--packages"))
    assert "Packages: 0 added, 1 removed, 1 upgraded, 0 downgraded" in out
    assert "grows.x86_64  1.9-1.el9  1.10-1.el9  upgraded" in out
    assert document(avs("-c", "diff", "example.prod", "-t", "1.9", "--packages", "--json"))["packages"]["kind"] == "rpm"


@pytest.mark.slow
def test_a_damaged_rpm_database_is_named(avs: Installation) -> None:
    classic = Classic.make(avs)
    classic.put("rootimg/var/lib/rpm/rpmdb.sqlite", "no database")
    classic.commit("one")
    classic.tag("v1")
    refused(avs("-c", "diff", "example.prod", "-t", "v1"), f"{PROD}: the packages of tag v1 cannot be read", "rpm")


def put_version(avs: Installation, files: Mapping[str, str], message: str) -> int:
    """Commit files to trunk by Subversion alone; the number of the revision."""
    url = f"file://{avs.top}/repo/{STORE_PATH}/trunk"
    checkout = avs.top / "svn"
    if not checkout.exists():
        if not (avs.top / "repo").exists():
            run("svnadmin", "create", str(avs.top / "repo"), cwd=avs.top)
        run("svn", "mkdir", "-q", "--parents", "-m", "layout", url, cwd=avs.top)
        run("svn", "checkout", "-q", url, str(checkout), cwd=avs.top)
    for name, text in files.items():
        avs.put(f"svn/{name}", text)
    run("svn", "add", "-q", "--force", ".", cwd=checkout)
    run("svn", "commit", "-q", "-m", message, cwd=checkout)
    return int(run("svn", "info", "--show-item", "revision", url, cwd=checkout))


@pytest.mark.slow
def test_counts_of_the_history(avs: Installation) -> None:
    """From each revision's provenance; one that brings none, as of avs_image_mgr, has no counts."""

    def build(number: int, **counts: object) -> int:
        text = json.dumps({"completed": f"}} {{ {number}", **counts}, indent=1) + "\n"
        files = {"build_info/provenance.json": text, "build_info/manifest": f"#mtree {number}\n", "kernel": f"{number}"}
        return put_version(avs, files, f"me; Image rebuild completed at noon\nbuild {number}")

    old = put_version(avs, {"kernel": "0"}, "by avs_image_mgr")
    first = build(1)
    second = build(2, packages=94, bytes=283 * 2**20)
    other = put_version(avs, {"kernel": "other"}, "by hand")
    third = build(3, packages=0, bytes=0)
    url = f"file://{avs.top}/repo/{STORE_PATH}"
    # What others do in the repository is no revision of trunk; a tag may hold its number.
    run("svn", "mkdir", "-q", "-m", "more", f"{url}/tags", cwd=avs.top)
    for name in ("a", "b"):
        run("svn", "cp", "-q", "-m", name, f"{url}/trunk", f"{url}/tags/{name}", cwd=avs.top)
    run("svn", "cp", "-q", "-m", "x", f"{url}/trunk@{other}", f"{url}/tags/hand", cwd=avs.top)
    found = document(avs("-c", "log", "example.prod", "--json"))["revisions"]
    assert [(item["number"], item["packages"], item["bytes"], item["tags"]) for item in found] == [
        (third, 0, 0, ["a", "b"]), (other, None, None, ["hand"]), (second, 94, 283 * 2**20, []), (first, None, None, []), (old, None, None, []),
    ]  # fmt: skip
    lines = good(avs("-c", "log", "example.prod")).split("\n")
    assert lines[1].split()[-5:] == ["0K", "a,", "b", "build", "3"]
    assert lines[2].split()[-5:] == ["-", "-", "hand", "by", "hand"]
    assert lines[3].split()[-5:] == ["94", "283M", "-", "build", "2"]
    assert lines[5].split()[-5:] == ["-", "-", "-", "by", "avs_image_mgr"]


@pytest.mark.slow
def test_a_damaged_provenance_is_named(avs: Installation) -> None:
    put_version(avs, {"build_info/provenance.json": "{", "kernel": "x"}, "one")
    refused(avs("-c", "log", "example.prod"), "build_info/provenance.json", "no JSON")


@pytest.mark.slow
def test_stored_lists_of_packages_are_taken(avs: Installation) -> None:
    """The list of a version goes before the database in it, where the commit that brought its manifest wrote it."""

    def files(version: str) -> dict[str, str]:
        listed = packages.dump(PackageList("rpm", [Package("p", 0, version, "1", "noarch")]))
        return {"build_info/packages": listed, "build_info/manifest": f"of {version}\n"}

    one = put_version(avs, {**files("1.0~rc1"), "rootimg/var/lib/dpkg/status": dpkg_status(other="1")}, "one")
    two = put_version(avs, files("1.0"), "two")
    out = good(avs("-c", "diff", "example.prod", "-r", f"{one}:{two}", "--packages"))
    assert "p.noarch  1.0~rc1-1  1.0-1  upgraded" in out
    three = put_version(avs, {**files("2"), "build_info/packages": "damaged"}, "three")
    line = ("-c", "diff", "example.prod", "--packages", "-r")
    refused(avs(*line, f"{one}:{three}"), "build_info/packages of revision", "no whole list")
    four = put_version(avs, {"rootimg/var/lib/dpkg/status": dpkg_status(other="2")}, "by hand")
    five = put_version(avs, {"rootimg/var/lib/dpkg/status": dpkg_status(other="3")}, "by hand")
    assert "other:amd64  2    3    upgraded" in good(avs(*line, f"{four}:{five}"))


@pytest.mark.slow
def test_a_commit_by_other_means_has_no_manifest(two: Installation, tmp_path: Path) -> None:
    """It leaves the manifest, and the rest of build_info, of the commit before it in place."""
    avs = Installation(tmp_path / "two")
    shutil.copytree(two.top, avs.top, symlinks=True)
    url = f"file://{avs.top}/repo/{STORE_PATH}/trunk"
    avs.conf.write_text(avs.conf.read_text().replace(str(two.top), str(avs.top)))
    run("svn", "checkout", "-q", url, str(avs.top / "svn"), cwd=avs.top)
    avs.put("svn/rootimg/etc/hostname", "by hand\n")
    avs.put("svn/rootimg/var/lib/dpkg/status", dpkg_status(bash="6", libc6="2.36-8", fresh="1:2-1"))
    run("svn", "commit", "-q", "-m", "by hand", cwd=avs.top / "svn")
    before = document(avs("-c", "log", "example.prod", "--json"))["revisions"][1]["number"]
    found = document(avs("-c", "diff", "example.prod", "-r", f"{before}:", "--json"))
    assert found["manifests"] == {"old": True, "new": False}
    assert [item["path"] for item in found["files"]] == ["/etc/hostname", "/var/lib/dpkg/status"]
    assert [item["new"]["version"] for item in found["packages"]["upgraded"]] == ["6"]
    assert "has no manifest" in good(avs("-c", "diff", "example.prod", "-t", "v2"))
    assert "has no manifest" not in good(avs("-c", "diff", "example.prod", "-t", "v1:v2"))

"""Look into a version, and back: files, cat, checkout, journal."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import others
import pytest
import warm

from .conftest import PROD, Installation
from .test_cli import refused

NOBODY = others.by_uid(65534)
BINARY = b"\x00\xff\x1b[31m no new line"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-c", "cat", "example.prod"], ["mode cat needs PATH, after the IMAGE"]),
        (["-c", "cat", "/etc/passwd", "-t", "v1"], ["mode cat needs PATH"]),
        (["-c", "checkout", "-p", "example.prod"], ["mode checkout needs DIR"]),
        (["-c", "cat"], ["mode cat needs the IMAGE"]),
        (["-c", "cat", "example.prod", "a", "b"], ["unexpected argument 'a' or 'b'"]),
        (
            ["-c", "files", "example.prod", "/etc/a", "/etc/b"],
            ["unexpected argument '/etc/a' or '/etc/b'", "a pattern, is quoted"],
        ),
        (["-c", "cat", "a", "b", "-p", "c"], ["IMAGE is given twice", "'a'", "'c'"]),
        (["-c", "cat", "a", ""], ["an empty value for ARGUMENT"]),
        (["-c", "files", "example.prod", "-t", "v1", "-r", "2"], ["-t TAG or -r REV, not both"]),
        (["-c", "journal", "example.prod", "x"], ["unexpected argument 'x'"]),
        (["-c", "images", "-t", "v1"], ["mode images takes no -t"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(avs: Installation, argv: list[str], words: list[str]) -> None:
    refused(avs(*argv), *words, usage=True)


@pytest.mark.parametrize(
    ("mode", "word"),
    [("files", "IMAGE [PATTERN]"), ("cat", "IMAGE PATH"), ("checkout", "IMAGE DIR"), ("images", "[IMAGE]")],
)
def test_the_usage_names_the_word_after_the_image(avs: Installation, mode: str, word: str) -> None:
    assert f"  avsimage -c {mode} {word} [options]\n" in avs("-c", mode, "-h").out


def test_nothing_was_packed_yet(avs: Installation) -> None:
    assert avs("-c", "journal").out == "(nothing has been packed yet)\n"
    assert json.loads(avs("-c", "journal", "example.prod", "--json").out) == {"entries": []}


def test_where_there_is_no_store(avs: Installation) -> None:
    refused(avs("-c", "files", "example.prod"), "there is no store yet")
    refused(avs("-c", "cat", "example.prod", "/etc/passwd"), "there is no store yet")
    answer = avs("-c", "images")
    assert (answer.code, PROD in answer.out, "Warning: there is no store yet" in answer.err) == (0, True, True)


def test_who_may(avs: Installation) -> None:
    """Root, where something is written or what is read is root's alone: never an answer that looks empty."""
    (avs.top / "state/journal").mkdir(parents=True)
    (avs.top / "state").chmod(0o700)
    others.let_in(avs.top)
    refused(avs("-c", "checkout", "example.prod", "/x", prefix=NOBODY), "checkout must run as root", "use sudo")
    refused(avs("-c", "journal", prefix=NOBODY), "Permission denied")


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An image with a file that is no text, tagged v1, and another one in its newest revision."""
    made = Installation.make(tmp_path_factory.mktemp("looked"))
    tree = made.tree()
    (tree / "rootimg/etc/binary").write_bytes(BINARY)
    (tree / "rootimg/etc/a\tb").write_text("a name that no store can hold")
    (tree / "rootimg/etc/link").symlink_to("/etc/binary")
    assert made.create("-m", "first").code == 0
    assert made("-c", "tag", "example.prod", "-t", "v1").code == 0
    (tree / "rootimg/etc/hostname").write_text("another\n")
    assert made.create("-m", "second").code == 0
    return made


@pytest.mark.slow
def test_cat_byte_by_byte(looked: Installation) -> None:
    for path in ("/etc/binary", "/etc/link"):
        argv = [*warm.MODULE, "-c", "cat", "example.prod", "-t", "v1", path]
        done = subprocess.run(argv, env=looked.environment(), cwd="/", capture_output=True, check=True, timeout=60)
        assert (done.stdout, done.stderr) == (BINARY, b"")
    found = json.loads(looked("-c", "cat", "example.prod", "/etc/link", "--json").out)
    assert (found["path"], found["content"], base64.b64decode(found["base64"])) == ("/etc/binary", None, BINARY)
    assert (found["size"], found["sha256"]) == (len(BINARY), hashlib.sha256(BINARY).hexdigest())


@pytest.mark.slow
def test_cat_on_a_terminal(looked: Installation) -> None:
    line = f"{' '.join(warm.MODULE)} -c cat example.prod /etc/binary"
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"], env=looked.environment({"TERM": "dumb"}), cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == rb"\x00\xff\x1b[31m no new line"


@pytest.mark.slow
def test_each_version_has_its_own(looked: Installation) -> None:
    assert looked("-c", "cat", "example.prod", "-t", "v1", "/etc/hostname").out == "node\n"
    assert looked("-c", "cat", "example.prod", "/etc/hostname").out == "another\n"
    assert looked("-c", "cat", "-p", "example.prod", "-r", "2", "/etc/hostname").out == "node\n"
    assert looked("-c", "cat", "example.prod", "/etc/a\tb").out == "a name that no store can hold"


@pytest.mark.slow
def test_patterns(looked: Installation) -> None:
    def paths(*argv: str) -> list[str]:
        return [
            item["path"] for item in json.loads(looked("-c", "files", "example.prod", *argv, "--json").out)["files"]
        ]

    assert paths("/etc") == ["/etc"]
    assert paths("/etc/[bh]*") == ["/etc/binary", "/etc/hostname"]
    assert "/usr/share/doc/readme" in paths("/usr/*"), "a star crosses slashes"
    assert paths("kernel", "-t", "v1") == ["kernel"]
    answer = looked("-c", "files", "example.prod", "/etc/hostnam")
    assert (answer.code, "did you mean hostname?" in answer.out) == (0, True)
    assert "/etc/a\\tb" in looked("-c", "files", "example.prod", "/etc/*").out
    assert "  /etc/link -> /etc/binary\n" in looked("-c", "files", "example.prod").out


@pytest.mark.slow
def test_checkout_is_what_was_built(looked: Installation) -> None:
    out = looked.top / "out"
    answer = looked("-c", "checkout", "example.prod", str(out))
    assert (answer.code, answer.err) == (0, "")
    built = looked.top / f"state/builds/{PROD}/tree"
    argv = ["rsync", "-aHAXn", "--checksum", "--delete", "-i", "--numeric-ids", f"{built}/rootimg/", f"{out}/rootimg/"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == ""
    refused(looked("-c", "checkout", "example.prod", str(out)), "out is not empty")


@pytest.mark.slow
def test_what_others_committed_has_no_manifest(looked: Installation, tmp_path: Path) -> None:
    """A manifest that is older than the revision says nothing of it; so it is not held against what is there."""
    store = f"file://{looked.top}/repo"
    url = f"{store}/netboot/debian12/x86_64"
    (tmp_path / "new").write_text("by hand\n")
    words = [
        "cp",
        "HEAD",
        f"{url}/example.prod",
        f"{url}/bare",
        "put",
        str(tmp_path / "new"),
        f"{url}/bare/trunk/kernel",
    ]
    subprocess.run(["svnmucc", "-m", "by hand", *words], check=True, capture_output=True)
    refused(looked("-c", "files", "bare"), "has no manifest", "`avsimage -c checkout debian12-x86_64-netboot-bare -r ")
    answer = looked("-c", "cat", "bare", "kernel")
    assert (answer.code, answer.out) == (0, "by hand\n")
    assert "has no manifest, so nothing but Subversion's own sums says that 'kernel' is whole" in answer.err


@pytest.mark.slow
def test_until_when(built: Installation) -> None:
    for argv in (["pack", "example.prod", "-t", "v1"], ["tag", "example.prod", "-t", "v2"], ["pack", "example.prod", "-t", "v2"],
                 ["rollback", "example.prod", "-m", "two\nlines"]):  # fmt: skip
        assert built("-c", *argv).code == 0
    entries = json.loads(built("-c", "journal", "--json").out)["entries"]
    assert [(entry["action"], entry["tag"]) for entry in entries] == [
        ("rollback", "v1"),
        ("pack", "v2"),
        ("pack", "v1"),
    ]
    assert [entry["until"] for entry in entries] == ["", entries[0]["date"], entries[1]["date"]]
    assert " rollback root two lines\n" in re.sub(" +", " ", built("-c", "journal", "-o", "debian12").out)
    assert json.loads(built("-c", "journal", "-o", "debian13", "--json").out) == {"entries": []}
    assert os.listdir(built.top / "state/journal") == [f"{PROD}.jsonl"]


@pytest.mark.slow
def test_a_tag_that_somebody_wrote_to(looked: Installation, tmp_path: Path) -> None:
    tags = f"file://{looked.top}/repo/netboot/debian12/x86_64/example.prod/tags"
    (tmp_path / "new").write_text("root::0:0::/root:/bin/sh\n")
    words = ["cp", "HEAD", f"{tags}/v1", f"{tags}/bad", "put", str(tmp_path / "new"), f"{tags}/bad/rootimg/etc/passwd"]
    subprocess.run(["svnmucc", "-m", "by hand", *words], check=True, capture_output=True)
    answer = looked("-c", "cat", "example.prod", "-t", "bad", "/etc/passwd")
    refused(answer, "tag bad: '/etc/passwd' is damaged in the store", f"`avsimage -c verify {PROD} -t bad`")
    refused(
        looked("-c", "checkout", "example.prod", "-t", "bad", str(tmp_path / "out")),
        "differs from its manifest in 1 path",
    )
    assert not (tmp_path / "out").exists()

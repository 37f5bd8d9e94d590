"""Signed tags, as their users see them: made, listed, shown, verified, packed, and refused each in its own words."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from signers import Signers, signers

from .conftest import PROD, Answer, Installation
from .test_cli import normalised

GOLDEN = Path(__file__).resolve().parent / "golden_signed"
STORY = {
    "tag.txt": ["tag", "example.prod", "-t", "v2", "-u", "alice", "--sign", "KEY"],
    "tag.json": ["tag", "example.prod", "-t", "v3", "-u", "alice", "--json", "--sign"],
    "list-tags.txt": ["list-tags", "example.prod"],
    "list-tags.json": ["list-tags", "example.prod", "--json"],
    "show.txt": ["show", "example.prod", "-t", "v2"],
    "show.json": ["show", "example.prod", "-t", "v3", "--json"],
    "verify.txt": ["verify", "example.prod", "-t", "v3"],
    "verify.json": ["verify", "example.prod", "-t", "v2", "--json"],
    "pack.txt": ["pack", "example.prod", "-t", "v2", "-u", "alice"],
    "pack.json": ["pack", "example.prod", "-t", "v3", "-u", "alice", "--json"],
}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signers]:
    for program in ("gpg", "gpgconf", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    with signers(tmp_path_factory.mktemp("keys")) as made:
        made.gpg("alice")
        made.ssh("alice")
        yield made


def allow(avs: Installation, people: Signers) -> None:
    avs.setting("sign", f"allowed_signers={people.allow('alice')}")
    avs.setting("sign", f"keyring={people.export('alice')}")
    avs.setting("sign", "key=alice@example.com")


def plain(text: str, avs: Installation, people: Signers) -> str:
    """The answer without what differs from run to run."""
    text = re.sub(r"\ball \d+ paths", "all N paths", text.replace(str(people.top), "KEYS"))
    text = re.sub(r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:KEY", re.sub(r"\b[0-9A-F]{40}\b", "FINGERPRINT", text))
    return normalised(text, avs)


@pytest.mark.slow
def test_golden(built: Installation, people: Signers) -> None:
    allow(built, people)
    built.setting("pack", "require_signature=*.prod")
    answers: dict[str, Answer] = {}
    for name, argv in STORY.items():
        words = [str(people.ssh("alice")) if word == "KEY" else word for word in argv]
        answers[name] = built("-c", *words, env=people.env)
        assert answers[name].code == 0, answers[name]
    for name, answer in answers.items():
        text = plain(answer.out, built, people)
        if os.environ.get("AVS_UPDATE_GOLDEN") == "1":
            GOLDEN.mkdir(exist_ok=True)
            (GOLDEN / name).write_text(text, encoding="utf-8")
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(STORY)
    # It goes where the store goes.
    script = 'svnadmin create "$2" && svnadmin dump -q "$1" | svnadmin load -q "$2"'
    subprocess.run(
        ["sh", "-ec", script, "sh", str(built.top / "repo"), str(built.top / "copy")], check=True, timeout=60
    )
    copied = built("-c", "list-tags", "example.prod", "--json", "-s", f"file://{built.top}/copy")
    assert [tag["signature"]["result"] for tag in json.loads(copied.out)["tags"]] == ["unsigned", "good", "good"]


def tamper(avs: Installation, revision: int, signature: str) -> None:
    """What an administrator of the repository can do to a signature."""
    hook = avs.top / "repo/hooks/pre-revprop-change"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    words = [
        "svn",
        "propset",
        "-q",
        "--revprop",
        "-r",
        str(revision),
        "avs:signature",
        signature,
        f"file://{avs.top}/repo",
    ]
    subprocess.run(words, check=True, timeout=60)


@pytest.mark.slow
def test_what_a_pack_refuses(built: Installation, people: Signers) -> None:
    allow(built, people)
    built.setting("pack", "require_signature=*.prod")

    def refused(tag: str, *words: str, required: bool = True, verified: bool = False) -> None:
        answer = built("-c", "pack", "example.prod", "-t", tag, "--force")
        assert (answer.code, answer.out) == (1, ""), answer
        for word in (*words, "nothing was packed", *(["[pack] require_signature"] if required else [])):
            assert word in answer.error
        if verified:
            finding = built("-c", "verify", "example.prod", "-t", tag)
            assert (finding.code, "[FAIL]" in finding.out, words[0] in finding.out) == (1, True, True), finding

    assert built("-c", "tag", "example.prod", "-t", "v2", "--sign", str(people.ssh("alice"))).code == 0
    made = json.loads(built("-c", "tag", "example.prod", "-t", "v3", "--json", env=people.env).out)
    assert made["signature"]["result"] == "good", "the key of the settings signs without an option"
    warned = built("-c", "tag", "example.prod", "-t", "v4", "--sign", str(people.ssh("mallory")))
    assert (warned.code, "which is the key of no allowed signer" in warned.err) == (0, True)
    refused("v1", "is not signed", verified=True)
    refused("v4", "which is the key of no allowed signer", verified=True)
    people.allow("alice", options='valid-before="20200101"')
    refused("v2", "a key that has expired")
    people.allow("alice")
    assert built("-c", "pack", "example.prod", "-t", "v2").code == 0
    revisions = {tag["name"]: tag for tag in json.loads(built("-c", "list-tags", "example.prod", "--json").out)["tags"]}
    text = subprocess.run(
        ["svn", "propget", "--revprop", "-r", str(made["revision"]), "avs:signature", f"file://{built.top}/repo"],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    tamper(built, revisions["v2"]["revision"], text)
    refused("v2", "tampered with: its signature is for tag v3, and it is tag v2", required=False)
    assert "(tampered)" in built("-c", "list-tags", "example.prod").out
    url = f"file://{built.top}/repo/netboot/debian12/x86_64/example.prod/tags/v3/build_info/manifest"
    changed = subprocess.run(["svn", "cat", url], check=True, capture_output=True, timeout=60).stdout.replace(
        b"boot.log", b"bout.log"
    )
    other = built.put("manifest", changed.decode())
    subprocess.run(["svnmucc", "-m", "x", "put", str(other), url], check=True, timeout=60)
    refused("v3", "tampered with: its signature is for manifest sha256:", required=False)
    # As nobody asks for a signature: only what was tampered with is refused, and nothing of the rest is silent.
    built.setting("pack", "require_signature=*.test")
    refused("v2", "tampered with: ", required=False)
    answer = built("-c", "pack", "example.prod", "-t", "v4")
    assert (answer.code, "Warning: " in answer.err, "no allowed signer" in answer.err) == (0, True, True)
    answer = built("-c", "verify", "example.prod", "-t", "v4")
    assert (answer.code, "[WARN]" in answer.out) == (0, True)
    answer = built("-c", "pack", "example.prod", "-t", "v1")
    assert (answer.code, answer.err) == (0, "")
    assert built("-c", "pack", "example.prod", "-t", "v1", "-x", "example.test").code == 1


@pytest.mark.slow
def test_create_with_f(built: Installation, people: Signers) -> None:
    allow(built, people)
    built.setting("pack", "require_signature=yes")
    built.setting("sign", "key=")
    answer = built.create("-f")
    assert (answer.code, "give --sign, or set [sign] key" in answer.error) == (1, True)
    answer = built.create("-f", "--sign", "/nowhere/key", "--json")
    document = json.loads(answer.out)
    assert (answer.code, document["failed"]["kind"]) == (1, "tag")
    assert document["next"].startswith(f"avsimage -c tag {PROD} -r ")
    answer = built.create("-f", "--sign", str(people.ssh("alice")))
    assert (answer.code, answer.out.count("Signed by alice@example.com with ssh ED25519 ")) == (0, 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-c", "pack", "example.prod", "-t", "x", "--sign", "y"], "mode pack takes no --sign"),
        (["-c", "create", "example.prod", "--sign"], "--sign says how -f packs the image"),
        (["-c", "tag", "example.prod", "--sign", "a", "--sign", "b"], "--sign is given 2 times"),
    ],
)
def test_the_option_where_it_is_wrong(avs: Installation, argv: list[str], words: str) -> None:
    answer = avs(*argv)
    assert (answer.code, words in answer.error) == (1, True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("require_signature=a/b", "it takes names"),
        ("key=x", "it belongs in [sign]"),
    ],
)
def test_settings_that_are_wrong(avs: Installation, value: str, words: str) -> None:
    avs.setting("pack", value)
    answer = avs("-c", "env", "example.prod")
    assert (answer.code, words in answer.error) == (1, True)

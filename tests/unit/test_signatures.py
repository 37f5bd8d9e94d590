"""Signatures of tags, by real keys: what is good, and each way in which one is not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from signers import PAST, Signers, signers

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.store import signatures
from xcat_avs.store.protocol import NewTag
from xcat_avs.store.signatures import (
    DEFAULT,
    EXPIRED,
    GOOD,
    REVOKED,
    TAMPERED,
    UNCHECKED,
    UNKNOWN,
    UNSIGNED,
    Signed,
    Signing,
)
from xcat_avs.system.runner import Runner

IMAGE = OsImage("debian12-x86_64-netboot-example.prod", {})
MANIFEST = b"a manifest\n"
DIGEST = sha256(MANIFEST).hexdigest()
DATE = "2026-11-26T01:02:03Z"
NEW = NewTag("v1", 7, author="alice", message="alice; Tag of revision 7", real="uid 0")


class Held:
    """As much of a store as a signature needs."""

    def __init__(self, manifest: bytes = MANIFEST) -> None:
        self.manifest = manifest

    def read(self, *_: object) -> bytes:
        if not self.manifest:
            raise NotFoundError("no such file")
        return self.manifest


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signers]:
    """Alice, who may sign, and Mallory, who may not."""
    for program in ("gpg", "gpgconf", "ssh-keygen", "ssh-agent"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    with signers(tmp_path_factory.mktemp("keys")) as made:
        for name in ("alice", "mallory"):
            made.gpg(name)
        yield made


@pytest.fixture
def signing(people: Signers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Signing]:
    """Signing as a site has it that allows Alice."""
    monkeypatch.setenv("GNUPGHOME", str(people.home))

    def make(**other: Any) -> Signing:
        usual = {"key": "", "allowed": str(people.allow("alice")), "keyring": str(people.export("alice"))}
        return Signing(**{**usual, "work": tmp_path / "work", "runner": Runner(timeout=60), **other})

    return make


def made(signing: Signing, manifest: bytes = MANIFEST) -> Tag:
    """The tag as a store has it after it was signed."""
    store: Any = Held(manifest)
    new = signing.sign(store, IMAGE, NEW, DATE)
    return Tag(new.name, 9, new.source, DATE, author=new.author, message=new.message, signature=new.signature)


def key(people: Signers, kind: str, name: str) -> str:
    return f"{name}@example.com" if kind == "gpg" else str(people.ssh(name))


KINDS = pytest.mark.parametrize("kind", ["gpg", "ssh"])


@KINDS
def test_a_good_one_says_who_when_and_with_what(people: Signers, signing: Callable[..., Signing], kind: str) -> None:
    desk = signing(key=key(people, kind, "alice"))
    signed = desk.check(IMAGE, made(desk), DIGEST)
    assert (signed.result, signed.date, signed.why) == (GOOD, DATE, "")
    assert signed.signer in ("Alice <alice@example.com>", "alice <alice@example.com>", "alice@example.com")
    assert signed.key.startswith("ssh ED25519 SHA256:" if kind == "ssh" else "gpg ")
    assert len(signed.key) > 40
    assert desk.check(IMAGE, made(desk), "") == signed
    assert not list(desk.work.glob("*")), "nothing is left"


def test_what_is_signed_is_a_text_for_people_too(people: Signers, signing: Callable[..., Signing]) -> None:
    text = made(signing(key=str(people.ssh("alice")))).signature.partition("-----")[0]
    assert text == (
        f"avsimage signed tag 1\nimage netboot/debian12/x86_64/example.prod\ntag v1\nrevision 7\n"
        f"manifest sha256:{DIGEST}\ndate {DATE}\n"
    )


def test_forms_of_a_keyring(people: Signers, signing: Callable[..., Signing]) -> None:
    tag = made(signing(key="alice@example.com"))
    for keyring in (people.export("alice", armored=True), people.home / "pubring.kbx"):
        assert signing(keyring=str(keyring)).check(IMAGE, tag, DIGEST).result == GOOD


def test_the_default_key_is_that_of_gpg(people: Signers, signing: Callable[..., Signing]) -> None:
    desk = signing(key=DEFAULT)
    assert desk.check(IMAGE, made(desk), DIGEST).result == GOOD


def test_a_key_that_only_an_agent_has(
    people: Signers, signing: Callable[..., Signing], monkeypatch: pytest.MonkeyPatch
) -> None:
    public = people.ssh("alice").with_suffix(".pub")
    alone = Path(shutil.copy(public, people.top / "alone.pub"))
    socket = str(people.top / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", socket)
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            while not Path(socket).exists():
                assert agent.poll() is None
            people.run("ssh-add", "-q", str(people.ssh("alice")))
            desk = signing(key=str(alone))
            assert desk.check(IMAGE, made(desk), DIGEST).result == GOOD
        finally:
            agent.terminate()


@KINDS
def test_of_another_tag(people: Signers, signing: Callable[..., Signing], kind: str) -> None:
    desk = signing(key=key(people, kind, "alice"))
    tag = made(desk)
    other = OsImage("debian12-x86_64-netboot-other", {})
    for image, present, manifest, words in (
        (IMAGE, replace(tag, name="v2"), DIGEST, "for tag v1, and it is tag v2"),
        (IMAGE, replace(tag, source=8), DIGEST, "for revision 7, and it is revision 8"),
        (IMAGE, tag, "0" * 64, f"for manifest sha256:{DIGEST}, and it is manifest sha256:000"),
        (IMAGE, replace(tag, name="v2"), "", "for tag v1"),
        (other, tag, DIGEST, "for image netboot/debian12/x86_64/example.prod"),
    ):
        signed = desk.check(image, present, manifest)
        assert (signed.result, words in signed.why) == (TAMPERED, True), signed


@KINDS
def test_a_text_that_was_changed(people: Signers, signing: Callable[..., Signing], kind: str) -> None:
    desk = signing(key=key(people, kind, "alice"))
    tag = made(desk)
    later = replace(tag, signature=tag.signature.replace("2026-", "2027-"))
    assert desk.check(IMAGE, later, DIGEST).result == TAMPERED
    renamed = replace(tag, name="v2", signature=tag.signature.replace("tag v1", "tag v2"))
    signed = desk.check(IMAGE, renamed, DIGEST)
    assert (signed.result, signed.why) == (TAMPERED, "the signature is not that of what is signed")


@KINDS
def test_what_is_no_signature(people: Signers, signing: Callable[..., Signing], kind: str) -> None:
    desk = signing(key=key(people, kind, "alice"))
    tag = made(desk)
    text, dashes, block = tag.signature.partition("-----BEGIN")
    lines = block.splitlines()
    for signature in (
        "nonsense", text, dashes + block, text + dashes + block[:40], text + text + dashes + block, f"\n{tag.signature}",
        text + dashes + "\n".join([*lines[:2], "AAAA", *lines[3:]]) + "\n",
        text + 2 * (dashes + block) if kind == "gpg" else text + dashes + block.replace("SSH", "PGP"),
    ):  # fmt: skip
        assert desk.check(IMAGE, replace(tag, signature=signature), DIGEST).result == TAMPERED, signature


@KINDS
def test_of_somebody_who_may_not_though_root_knows_the_key(
    people: Signers, signing: Callable[..., Signing], kind: str
) -> None:
    desk = signing(key=key(people, kind, "mallory"))
    signed = desk.check(IMAGE, made(desk), DIGEST)
    assert (signed.result, signed.signer) == (UNKNOWN, "")
    assert people.top.name in signed.why
    assert "which is the key of no allowed signer" in signed.words("now")


def test_a_key_for_other_things(people: Signers, signing: Callable[..., Signing]) -> None:
    desk = signing(key=str(people.ssh("alice")))
    tag = made(desk)
    people.allow("alice", options='namespaces="git"')
    assert desk.check(IMAGE, tag, DIGEST).result == UNKNOWN
    people.allow("alice", options='namespaces="git,avsimage-tag"')
    assert desk.check(IMAGE, tag, DIGEST).result == GOOD


def test_expired_keys(people: Signers, signing: Callable[..., Signing]) -> None:
    desk = signing(key=str(people.ssh("alice")))
    tag = made(desk)
    for options in ('valid-before="20200101"', 'valid-after="20990101"'):
        people.allow("alice", options=options)
        assert desk.check(IMAGE, tag, DIGEST).result == EXPIRED
    people.gpg("past", past=True)
    conf = people.home / "gpg.conf"
    conf.write_text(f"faked-system-time {PAST}\n")
    try:
        tag = made(signing(key="past@example.com"))
    finally:
        conf.unlink()
    desk = signing(keyring=str(people.export("past")))
    signed = desk.check(IMAGE, tag, DIGEST)
    assert (signed.result, signed.signer) == (EXPIRED, "past <past@example.com>")
    later = replace(tag, signature=tag.signature.replace("2026-", "2027-"))
    assert desk.check(IMAGE, later, DIGEST).result == TAMPERED


def test_a_revoked_key(people: Signers, signing: Callable[..., Signing]) -> None:
    fingerprint = people.gpg("carol")
    tag = made(signing(key="carol@example.com"))
    people.revoke(fingerprint)
    signed = signing(keyring=str(people.export("carol"))).check(IMAGE, tag, DIGEST)
    assert (signed.result, signed.key) == (REVOKED, f"gpg {fingerprint}")


@KINDS
def test_where_nobody_can_say(people: Signers, signing: Callable[..., Signing], kind: str, tmp_path: Path) -> None:
    tag = made(signing(key=key(people, kind, "alice")))
    setting = {"gpg": "keyring", "ssh": "allowed"}[kind]
    name = {"gpg": "[sign] keyring", "ssh": "[sign] allowed_signers"}[kind]
    signed = signing(**{setting: ""}).check(IMAGE, tag, DIGEST)
    assert (signed.result, signed.why) == (UNCHECKED, f"{name} is not set")
    missing = tmp_path / "missing"
    signed = signing(**{setting: str(missing)}).check(IMAGE, tag, DIGEST)
    assert (signed.result, signed.why) == (UNCHECKED, f"{name}: {missing}: No such file or directory")
    loose = tmp_path / "loose"
    loose.touch()
    loose.chmod(0o666)
    signed = signing(**{setting: str(loose)}).check(IMAGE, tag, DIGEST)
    assert (signed.result, "written by others than root" in signed.why) == (UNCHECKED, True)


def test_a_program_that_is_missing(
    people: Signers, signing: Callable[..., Signing], monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = made(signing(key=str(people.ssh("alice"))))
    monkeypatch.setattr("xcat_avs.system.command.environment", lambda extra=None: {"PATH": "/nowhere"})
    signed = signing(keyring=str(people.top), allowed=str(people.top / "allowed_signers")).check(IMAGE, tag, DIGEST)
    assert (signed.result, "ssh-keygen is not installed" in signed.why) == (UNCHECKED, True)


@pytest.mark.parametrize("key", ["nobody@example.com", "/nowhere/key"])
def test_a_key_that_does_not_sign_makes_no_tag(signing: Callable[..., Signing], key: str) -> None:
    with pytest.raises(AvsError, match=r"example.prod: tag v1 was not signed, and so not made: ") as caught:
        made(signing(key=key))
    assert caught.value.tail


def test_a_revision_without_a_manifest(people: Signers, signing: Callable[..., Signing]) -> None:
    with pytest.raises(AvsError, match="has no manifest, so there is nothing to sign"):
        made(signing(key=DEFAULT), b"")


def test_not_signed(signing: Callable[..., Signing]) -> None:
    desk = signing()
    tag = made(desk)
    assert tag.signature == ""
    assert desk.check(IMAGE, tag, DIGEST) == Signed(UNSIGNED)
    assert (Signed(UNSIGNED).words("now"), Signed(UNSIGNED).short()) == ("not signed", "-")
    assert Signed(EXPIRED, "alice", "gpg 1").short() == "alice (expired)"
    assert Signed(UNKNOWN, "", "gpg 1").short() == "(unknown)"


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([], False),
        (["no"], False),
        (["yes"], True),
        (["On"], True),
        (["*"], True),
        (["example.prod"], True),
        (["*.prod"], True),
        (["debian12-*"], True),
        (["debian13-*", "*.test"], False),
        (["prod"], False),
        (["no", "*.prod"], True),
    ],
)
def test_of_which_osimages_it_is_required(patterns: list[str], wanted: bool) -> None:
    assert signatures.required(patterns, IMAGE) is wanted

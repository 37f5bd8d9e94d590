"""Signed tags: what is signed, by gpg or by ssh-keygen, and who of those that the site allows has signed."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, CommandError, NotFoundError
from xcat_avs.store.protocol import MANIFEST, NewTag, Store, Version
from xcat_avs.system import trust
from xcat_avs.system.runner import Runner
from xcat_avs.system.scratch import own_directory

NAMESPACE = "avsimage-tag"  # of ssh-keygen: a signature for something else is none for a tag
DEFAULT = "default"  # the key of avs.conf, else gpg's own
TITLE = "avsimage signed tag 1"
ALL, NONE = ("yes", "true", "on", "1"), ("no", "false", "off", "0")
AGENT = ("GNUPGHOME", "GPG_TTY")  # what gpg and its agent take from the environment; SSH_AUTH_SOCK every program has
GPG, SSH = "gpg", "ssh"
BLOCK = re.compile(r"^-----BEGIN (PGP|SSH) SIGNATURE-----\n", re.MULTILINE)
SETTINGS = {GPG: "keyring", SSH: "allowed_signers"}
GOOD, UNSIGNED, TAMPERED, EXPIRED, REVOKED, UNKNOWN, UNCHECKED = (
    "good", "unsigned", "tampered", "expired", "revoked", "unknown", "unchecked",
)  # fmt: skip
# What gpg says of a signature -> what it is.
STATES = {
    "GOODSIG": GOOD, "EXPSIG": EXPIRED, "EXPKEYSIG": EXPIRED, "REVKEYSIG": REVOKED, "BADSIG": TAMPERED, "ERRSIG": UNKNOWN,
}  # fmt: skip
SSH_KEY = re.compile(r'^Good "[^"]*" signature (?:for .* )?with (\S+) key (\S+)$', re.MULTILINE)
SSH_EXPIRED = re.compile(r"key has expired|key is not yet valid")


@dataclass(frozen=True)
class Signed:
    """What became of the check of a signature. signer, key: who, and with which key; date: when, UTC, by the signer's clock.

    why: what is wrong with it.
    """

    result: str
    signer: str = ""
    key: str = ""
    date: str = ""
    why: str = ""

    def words(self, date: str) -> str:
        """What is to be told of a tag. date: as the reader has it."""
        who = f" by {self.signer}" if self.signer else ""
        said = f"signed {date}{who} with {self.key}" if self.key else "signed"
        return {
            GOOD: said,
            UNSIGNED: "not signed",
            TAMPERED: f"tampered with: {self.why}",
            EXPIRED: f"{said}, a key that has expired, or is not yet valid",
            REVOKED: f"{said}, a key that was revoked",
            UNKNOWN: f"{said}, which is the key of no allowed signer: {self.why}",
            UNCHECKED: f"signed, and nobody can say by whom: {self.why}",
        }[self.result]

    def short(self) -> str:
        """The same for a table."""
        if self.result in (GOOD, UNSIGNED):
            return self.signer or "-"
        return f"{self.signer} ({self.result})".lstrip()


def required(patterns: Sequence[str], image: OsImage, usual: str = "*") -> bool:
    """Whether `[pack] require_signature`, or what is like it, means an osimage, by its name or its profile.

    usual: the pattern that `yes` stands for.
    """
    found = [usual if item.lower() in ALL else item for item in patterns if item.lower() not in NONE]
    return any(fnmatchcase(name, item) for item in found for name in (image.name, image.profile))


def digest(store: Store, image: OsImage, version: Version) -> str:
    """The SHA-256 of the manifest of a version, "" where it has none."""
    try:
        return hashlib.sha256(store.read(image, version, MANIFEST)).hexdigest()
    except NotFoundError:
        return ""


def document(tag: Tag, signed: Signed) -> dict[str, Any]:
    """A tag for programs: in place of the signature what became of its check."""
    return {**asdict(tag), "signature": asdict(signed)}


def _facts(image: OsImage, tag: str, source: int, manifest: str) -> dict[str, str]:
    return {"image": image.store_path, "tag": tag, "revision": str(source), "manifest": f"sha256:{manifest}"}


def _read(text: str) -> dict[str, str]:
    """The facts of a signed text; none where it is no such text."""
    lines = text.splitlines()
    return dict(line.partition(" ")[::2] for line in lines[1:]) if lines[:1] == [TITLE] else {}


@dataclass(frozen=True)
class Signing:
    """How tags are signed and checked here.

    key: what signs a new tag: the path of an ssh key, what gpg takes for one of its own, DEFAULT, or "" for none.
    allowed: the file with the allowed signers of ssh; keyring: the file with the public keys of those of gpg; "" for none.
    work: a private directory. runner: how programs are run.
    """

    key: str
    allowed: str
    keyring: str
    work: Path
    runner: Runner

    def sign(self, store: Store, image: OsImage, new: NewTag, date: str) -> NewTag:
        """A tag that is to be made, with its signature where tags are signed. date: UTC. Raises AvsError."""
        if not self.key:
            return new
        manifest = digest(store, image, Version(revision=new.source))
        if not manifest:
            raise AvsError(
                f"{image.name}: revision {new.source} has no manifest, so there is nothing to sign; tag a newer one"
            )
        facts = {**_facts(image, new.name, new.source, manifest), "date": date}
        text = "".join(f"{line}\n" for line in [TITLE, *(f"{name} {value}" for name, value in facts.items())])
        with self._scratch() as scratch:
            file = scratch / "tag"
            file.write_text(text, encoding="utf-8")
            try:
                signature = self._signature(file)
            except CommandError as err:
                raise err.prefixed(f"{image.name}: tag {new.name} was not signed, and so not made: ") from None
        return replace(new, signature=text + signature)

    def _signature(self, file: Path) -> str:
        """What the program that has the key makes of a file; the key itself is never read here."""
        if "/" in self.key:
            argv, made = ["ssh-keygen", "-q", "-Y", "sign", "-f", self.key, "-n", NAMESPACE, str(file)], ".sig"
        else:
            user = [] if self.key == DEFAULT else ["--local-user", self.key]
            argv, made = ["gpg", "--quiet", "--batch", "--no-tty", "--armor", "--detach-sign", *user, str(file)], ".asc"
        env = {name: os.environ[name] for name in AGENT if name in os.environ}
        self.runner.capture(argv, env=env)
        return file.with_name(f"{file.name}{made}").read_text(encoding="ascii")

    def check(self, image: OsImage, tag: Tag, manifest: str) -> Signed:
        """What the signature of a tag is worth now. manifest: its digest, "" to leave that out, as a list does."""
        if not tag.signature:
            return Signed(UNSIGNED)
        block = BLOCK.search(tag.signature)
        said = _read(tag.signature[: block.start()]) if block else {}
        if block is None or "date" not in said:
            return Signed(TAMPERED, why="what is stored as its signature is none")
        kind = GPG if block[1] == "PGP" else SSH
        # What was signed is the revision by the number that it was made with.
        wrong = _wrong(
            said, _facts(image, tag.name, tag.first, manifest or said.get("manifest", "").rpartition(":")[2])
        )
        if wrong:
            return Signed(TAMPERED, date=said["date"], why=wrong)
        file = self.keyring if kind == GPG else self.allowed
        if not file:
            return Signed(UNCHECKED, date=said["date"], why=f"[sign] {SETTINGS[kind]} is not set")
        try:
            trust.refuse(Path(file))
            with self._scratch() as scratch:
                (scratch / "tag").write_text(tag.signature[: block.start()], encoding="utf-8")
                (scratch / "signature").write_text(tag.signature[block.start() :], encoding="utf-8")
                found = _by_gpg(scratch, file, self.runner) if kind == GPG else _by_ssh(scratch, file, self.runner)
        except AvsError as err:
            found = Signed(UNCHECKED, why="; ".join([err.text, *err.tail]))
        except OSError as err:
            found = Signed(UNCHECKED, why=f"[sign] {SETTINGS[kind]}: {err.filename}: {err.strerror}")
        return replace(found, date=said["date"])

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A private directory for one use, for those as well who may not write to the state directory."""
        directory = own_directory(self.work, "sign.") if os.geteuid() == 0 else tempfile.TemporaryDirectory()
        with directory as found:
            yield Path(found)


def _wrong(said: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """How a signed text is that of another tag, or ""."""
    wrong = [name for name, value in wanted.items() if said.get(name) != value]
    texts = [f"its signature is for {name} {said.get(name, 'none')}, and it is {name} {wanted[name]}" for name in wrong]
    return "; ".join(texts)


def _by_gpg(scratch: Path, keyring: str, runner: Runner) -> Signed:
    """Check a signature with the keys of a file alone: neither those of root nor of the one who runs this count."""
    options = ["--batch", "--no-tty", "--homedir", str(scratch), "--no-options", "--disable-dirmngr", "--lock-never"]
    with open(keyring, "rb") as stream:
        armored = stream.read(10) == b"-----BEGIN"
    if armored:
        plain = str(scratch / "keyring")
        runner.capture(["gpg", *options, "--output", plain, "--dearmor", keyring])
        keyring = plain
    words = ["--no-default-keyring", "--keyring", keyring, "--trust-model", "always", "--status-fd", "1", "--verify"]
    said = runner.capture(["gpg", *options, *words, str(scratch / "signature"), str(scratch / "tag")], check=False)
    lines = [line.split(" ", 3)[1:] for line in said.text.splitlines() if line.startswith("[GNUPG:] ")]
    states = [line for line in lines if line[0] in STATES]
    if len(states) != 1:
        return Signed(TAMPERED, why="what is stored as its signature is none that gpg can read")
    name, key, rest = (*states[0], "")[:3]
    key = next((line[1] for line in lines if line[0] == "VALIDSIG"), key)
    result = STATES[name]
    if result == GOOD and said.code:
        result = TAMPERED
    signer = "" if result == UNKNOWN else rest
    why = {TAMPERED: "the signature is not that of what is signed", UNKNOWN: f"{keyring} has no such key"}.get(
        result, ""
    )
    return Signed(result, signer, f"gpg {key}", why=why)


def _by_ssh(scratch: Path, allowed: str, runner: Runner) -> Signed:
    """Check a signature by a file of allowed signers, see ssh-keygen(1)."""
    with open(allowed, "rb"):  # of one that it cannot read ssh-keygen says only that there is no such signer
        pass
    signature = ["-n", NAMESPACE, "-s", str(scratch / "signature")]
    names, wrong = _keygen(scratch, ["find-principals", *signature[2:], "-f", allowed], runner)
    for signer in names.splitlines():
        said, wrong = _keygen(scratch, ["verify", *signature, "-f", allowed, "-I", signer], runner)
        key = SSH_KEY.search(said)
        if key:
            return Signed(GOOD, signer, f"ssh {key[1]} {key[2]}")
    said, _ = _keygen(scratch, ["check-novalidate", *signature], runner)
    key = SSH_KEY.search(said)
    if key is None:
        return Signed(TAMPERED, why="the signature is not that of what is signed")
    result = EXPIRED if SSH_EXPIRED.search(wrong) else UNKNOWN
    return Signed(result, "", f"ssh {key[1]} {key[2]}", why=f"{allowed} has no such key for the namespace {NAMESPACE}")


def _keygen(scratch: Path, words: Sequence[str], runner: Runner) -> tuple[str, str]:
    """What `ssh-keygen -Y` answers, nothing where it fails, and what it says on stderr."""
    log, said = scratch / "log", scratch / "said"
    log.unlink(missing_ok=True)
    try:
        runner.to(log).pipe([["ssh-keygen", "-Y", *words]], stdin=scratch / "tag", stdout=said)
    except CommandError as err:
        if "exit code" not in err.text:  # it is not installed, or was ended: that says nothing of the signature
            raise
        return "", "\n".join(err.tail)
    return said.read_text(encoding="utf-8", errors="replace"), ""

"""People who sign, with real keys of gpg and of ssh, and the files in which a site says who may."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAST = "20200101T000000"


@dataclass(frozen=True)
class Signers:
    """top: a private directory for all of it. The home of gpg there is that of the one who signs."""

    top: Path

    @property
    def home(self) -> Path:
        return self.top / "gnupg"

    @property
    def env(self) -> dict[str, str]:
        return {"GNUPGHOME": str(self.home)}

    def run(self, *argv: str, stdin: str = "") -> str:
        env = {**os.environ, **self.env, "LC_ALL": "C.UTF-8"}
        return subprocess.run(argv, input=stdin, env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    def ssh(self, name: str) -> Path:
        """The private key of somebody; the public one is beside it."""
        path = self.top / name
        if not path.exists():
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def allow(self, *names: str, options: str = "") -> Path:
        """A file that allows the keys of these."""
        path = self.top / "allowed_signers"
        lines = [f"{name}@example.com {options} {self.ssh(name).with_suffix('.pub').read_text()}" for name in names]
        path.write_text("".join(lines))
        return path

    def gpg(self, name: str, *, past: bool = False) -> str:
        """The fingerprint of somebody's key. past: it is expired since long."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        when = ["--faked-system-time", PAST] if past else []
        words = ["--quick-generate-key", f"{name} <{name}@example.com>", "ed25519", "sign", "1d"]
        self.run("gpg", "--batch", "--quiet", "--passphrase", "", *when, *words)
        listed = self.run("gpg", "--batch", "--with-colons", "--list-keys", f"{name}@example.com")
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def revoke(self, fingerprint: str) -> None:
        text = (self.home / f"openpgp-revocs.d/{fingerprint}.rev").read_text()
        self.run("gpg", "--batch", "--quiet", "--import", stdin=text.replace(":-----BEGIN", "-----BEGIN"))

    def export(self, *names: str, armored: bool = False) -> Path:
        """A keyring with the public keys of these."""
        path = self.top / f"{'-'.join(names)}.{'asc' if armored else 'gpg'}"
        path.unlink(missing_ok=True)
        form = ["--armor"] if armored else []
        users = [f"{name}@example.com" for name in names]
        self.run("gpg", "--batch", "--quiet", *form, "--output", str(path), "--export", *users)
        return path


@contextmanager
def signers(top: Path) -> Iterator[Signers]:
    """Keys below a directory; what gpg has started for them is ended with the block."""
    made = Signers(top)
    try:
        yield made
    finally:
        if made.home.exists():
            made.run("gpgconf", "--kill", "all")

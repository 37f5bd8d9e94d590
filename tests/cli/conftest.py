"""A temporary installation, and the command run in it as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pytest
import warm

TOP = Path(__file__).resolve().parents[2]
PROD, TEST = "debian12-x86_64-netboot-example.prod", "debian12-x86_64-netboot-example.test"
STANZA = """# <xCAT data object stanza file>

debian12-x86_64-netboot-example.prod:
    objtype=osimage
    imagetype=linux
    osarch=x86_64
    osname=Linux
    osvers=debian12
    pkglist=INSTALL/custom/example.pkglist
    profile=example.prod
    provmethod=netboot
    rootimgdir=INSTALL/netboot/debian12/x86_64/example.prod

debian12-x86_64-netboot-example.test:
    objtype=osimage
    pkglist=INSTALL/custom/example.pkglist
    provmethod=netboot

debian12-x86_64-netboot-twin:
    objtype=osimage
    provmethod=netboot

debian13-x86_64-netboot-twin:
    objtype=osimage
    provmethod=netboot

debian12-x86_64-netboot-lost:
    objtype=osimage
    pkglist=INSTALL/custom/missing.pkglist
    provmethod=netboot

debian12-x86_64-netboot-bare:
    objtype=osimage
    provmethod=netboot
"""
CONF = """[xcat]
use = no
definitions = TOP/images.stanza

[paths]
state = TOP/state
logs = TOP/logs
store = file://TOP/repo
installdir = TOP/install
tftpdir = TOP/tftpboot
"""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The text after `Error: `, in one line, where there is exactly one error and no traceback."""
        assert "Traceback" not in self.err, self.err
        _, found, text = f"\n{self.err}".partition("\nError: ")
        assert found, f"no error: {self.err!r}"
        assert "\nError: " not in text, self.err
        return " ".join(text.split())


@dataclass(frozen=True)
class Installation:
    """A standalone installation below top: avs.conf, stanza file, install, store."""

    top: Path

    @classmethod
    def make(cls, top: Path) -> Installation:
        made = cls(top)
        (made.install / "custom").mkdir(parents=True)
        made.put("images.stanza", STANZA.replace("INSTALL", str(made.install)))
        made.put("avs.conf", CONF.replace("TOP", str(top)))
        made.put("install/custom/example.pkglist", "bash\n")
        return made

    @property
    def install(self) -> Path:
        return self.top / "install"

    @property
    def conf(self) -> Path:
        return self.top / "avs.conf"

    def put(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file below top."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def setting(self, section: str, line: str) -> None:
        """Put a line into avs.conf, in place of the one of the same name."""
        name = line.partition("=")[0]
        lines = [item for item in self.conf.read_text().split("\n") if item.partition("=")[0] != name]
        if f"[{section}]" not in lines:
            lines.append(f"[{section}]")
        lines.insert(lines.index(f"[{section}]") + 1, line)
        self.conf.write_text("\n".join(lines) + "\n")

    def environment(self, extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.top),
            "TZ": "UTC",
            "AVS_CONF": str(self.conf),
            "PYTHONPATH": str(TOP),
        }
        # A checkout that root keeps must not get files of others.
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        env.update(extra or {})
        return env

    def __call__(self, *argv: str, env: Optional[Mapping[str, str]] = None, prefix: Sequence[str] = ()) -> Answer:
        """Run avsimage. prefix: what runs it, such as setpriv."""
        # Another directory than the checkout: nothing may depend on where the user stands.
        if prefix:
            line = [*prefix, *warm.MODULE, *argv]
            done = subprocess.run(
                line,
                cwd="/",
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        else:
            done = warm.run(argv, env=self.environment(env))
        return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def tree(self, name: str = "source") -> Path:
        """A small tree laid out like a rootimgdir, with fixed times."""
        top = self.top / name
        for path, text in {
            "rootimg/etc/hostname": "node\n", "rootimg/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "rootimg/home/.keep": "",
            "rootimg/usr/share/doc/readme": "read me\n" * 100, "rootimg/var/log/boot.log": "log\n",
            "rootimg/tmp/left": "x", "kernel": "a kernel\n" * 50, "initrd-stateless.gz": "an initrd\n" * 50,
        }.items():  # fmt: skip
            self.put(f"{name}/{path}", text)
        (top / "rootimg/bin").symlink_to("usr/bin")
        for item in [top, *top.rglob("*")]:
            os.utime(item, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
        return top

    def create(self, *argv: str) -> Answer:
        """A real image, from a small tree; the tree is made the first time."""
        source = self.top / "source"
        if not source.exists():
            self.tree()
        return self("-c", "create", "example.prod", "--from", str(source), *argv)


@pytest.fixture
def avs(tmp_path: Path) -> Installation:
    """An installation without an image in its store."""
    return Installation.make(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with one image, tagged v1. Not to be changed: see `built`."""
    made = Installation.make(tmp_path_factory.mktemp("built"))
    for answer in (made.create("-m", "first"), made("-c", "tag", "example.prod", "-t", "v1", "-m", "why")):
        assert answer.code == 0, answer.err
    return made


@pytest.fixture
def built(built_once: Installation) -> Iterator[Installation]:
    """The same for one test; what it writes is taken back."""
    saved = built_once.top.with_name(built_once.top.name + ".saved")
    shutil.copytree(built_once.top, saved, symlinks=True)
    try:
        yield built_once
    finally:
        shutil.rmtree(built_once.top)
        saved.rename(built_once.top)

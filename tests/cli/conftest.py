"""A temporary installation, and the command run in it as a user would."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional
from unittest.mock import patch

import pytest
import warm
from harness import TOP, Node, Result

from xcat_avs import cli
from xcat_avs.system import interrupts, mounts

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


class Answer(Result):
    """What a command said."""

    @property
    def out(self) -> str:
        return self.stdout

    @property
    def err(self) -> str:
        return self.stderr

    @property
    def error(self) -> str:
        """The text after `Error: `, in one line, where there is exactly one error and no traceback."""
        assert "Traceback" not in self.err, self.err
        _, found, text = f"\n{self.err}".partition("\nError: ")
        assert found, f"no error: {self.err!r}"
        assert "\nError: " not in text, self.err
        return " ".join(text.split())


class Installation(Node):
    """A standalone installation below top: avs.conf, stanza file, install, store."""

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
        done = self.finish(self.launch([*warm.MODULE, *argv], self.environment(env), prefix, cwd="/"))
        return Answer(done.code, done.stdout, done.stderr, done.seconds)

    def here(self, *argv: str) -> Answer:
        """Run avsimage in this process, which takes a tenth of the time: for what ends before anything is mounted."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        handlers, mask, here = (
            {number: signal.getsignal(number) for number in (*interrupts.SIGNALS, signal.SIGTSTP)},
            os.umask(0o022),
            os.getcwd(),
        )
        never = AssertionError("only a process of its own may have mounts of its own")
        with patch.dict(os.environ, self.environment(), clear=True), patch.multiple(sys, stdout=out, stderr=err), patch.object(
            mounts, "enter_private_namespace", side_effect=never
        ):  # fmt: skip
            try:
                time.tzset()  # for another test may have had another zone in this process
                os.chdir("/")
                code = cli.run(argv)
            finally:
                os.chdir(here)
                os.umask(mask)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        said, warned = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))
        return Answer(code, said, warned)

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

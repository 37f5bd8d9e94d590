"""A management node in a directory of its own: XCATROOT, INSTALLDIR, TFTPDIR, tables, and runs of avsimage on it."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import warm
from harness import TOP, Node, Result

from fakes import xcat

PROGRAMS = Path(__file__).with_name("bin")
OSVERS, ARCH = "rocky9.4", "x86_64"


def osimage(profile: str) -> str:
    return f"{OSVERS}-{ARCH}-netboot-{profile}"


class ManagementNode(Node):
    """top: an empty directory, for everything. Changes of tables and knobs count from the next program on."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.root = top / "xcat"
        self.installdir, self.tftpdir = top / "install", top / "tftpboot"
        self.state, self.logs, self.repository = top / "state", top / "logs", top / "store/repo"
        self.fake = self.root / "fake"
        for directory in (
            self.fake / "nodes",
            self.root / "bin",
            self.root / "sbin",
            self.installdir / "postscripts",
            self.tftpdir,
            top / "tmp",
        ):
            directory.mkdir(parents=True)
        for program in xcat.programs():
            (self.root / program).symlink_to(PROGRAMS / os.path.basename(program))
        for family in xcat.FAMILIES:
            directory = self.root / "share/xcat/netboot" / family
            directory.mkdir(parents=True)
            (directory / "genimage").symlink_to(PROGRAMS / "genimage")
        (self.installdir / "postscripts/xcatdsklspost").write_text("#!/bin/sh\n")
        site = {
            "installdir": str(self.installdir),
            "tftpdir": str(self.tftpdir),
            "timezone": "Universal",
            "master": "127.0.0.1",
        }
        self.tables: dict[str, Any] = {"osimage": {}, "node": {}, "site": site, "passwd": "$6$salt$hash"}
        self.knobs: dict[str, Any] = {}
        self.settings: dict[str, dict[str, str]] = {}
        self.environment = {
            "PATH": os.pathsep.join([str(self.root / "bin"), str(self.root / "sbin"), os.environ.get("PATH", "/usr/bin:/bin")]),
            "HOME": str(top), "TERM": "dumb", "TMPDIR": str(top / "tmp"), "XCATROOT": str(self.root), "TZ": "UTC",
            "AVS_CONF": str(top / "avs.conf"), "PYTHONPATH": str(TOP),
        }  # fmt: skip
        self.save()
        self.configure("xcat", use="auto")

    @classmethod
    def copy(cls, template: ManagementNode, top: Path) -> ManagementNode:
        """Another node in the same state, apart from builds, in directories of its own."""
        made = cls(top)
        for name in ("store", "install", "tftpboot", "state/journal"):
            if (template.top / name).exists():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", str(template.top / name), str((top / name).parent)], check=True)
        text = json.dumps(template.tables).replace(str(template.top), str(top))
        made.tables, made.settings = json.loads(text), {key: dict(value) for key, value in template.settings.items()}
        made.save()
        made.configure("xcat")
        return made

    # tables and settings

    def save(self) -> None:
        xcat.write_json(self.fake / "tables.json", self.tables)
        xcat.write_json(self.fake / "knobs.json", self.knobs)

    def reload(self) -> None:
        """What the programs have changed in the tables."""
        self.tables = json.loads((self.fake / "tables.json").read_text(encoding="utf-8"))

    def configure(self, section: str, **values: str) -> None:
        table = {"paths": {"state": str(self.state), "logs": str(self.logs), "store": f"file://{self.repository}"}}
        self.settings.setdefault(section, {}).update(values)
        lines = []
        for name in {**table, **self.settings}:
            merged = {**table.get(name, {}), **self.settings.get(name, {})}
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in merged.items())]
        (self.top / "avs.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def define(self, name: str, **attributes: str) -> str:
        """Set attributes of an osimage; an empty value takes one out. Returns its name."""
        values = self.tables["osimage"].setdefault(name, {})
        values.update(attributes)
        self.tables["osimage"][name] = {key: value for key, value in values.items() if value}
        self.save()
        return name

    def image(self, name: str = "example.prod", **attributes: str) -> str:
        """A complete osimage of today."""
        pkglist = self.installdir / f"custom/netboot/rocky/{name}.pkglist"
        pkglist.parent.mkdir(parents=True, exist_ok=True)
        if not pkglist.exists():
            pkglist.write_text("bash\nkernel\nthe-image's-own\n")
        complete = {
            "imagetype": "linux", "osname": "Linux", "osvers": OSVERS, "osarch": ARCH, "profile": name, "provmethod": "netboot",
            "pkglist": str(pkglist), "rootimgdir": str(self.served(name)), "permission": "755",
            "pkgdir": f"{self.installdir}/{OSVERS}/{ARCH}",
        }  # fmt: skip
        return self.define(osimage(name), **{**complete, **attributes})

    def classic(self, profile: str = "example.prod") -> str:
        """An osimage as the classic quick start defines it: without osvers, osarch and profile."""
        return self.image(profile, osvers="", osarch="", profile="", osname="", permission="", pkgdir="")

    def nodes(self, image: str, *names: str) -> None:
        for name in names:
            self.tables["node"][name] = {
                "groups": "compute,all",
                "provmethod": image,
                "mgt": "ipmi",
                "bmcpassword": "secret",
            }
        self.save()

    def knob(self, program: str, **values: Any) -> None:
        """Change what goes wrong in a program."""
        self.knobs.setdefault(program, {}).update(values)
        self.save()

    def daemon(self, mode: str) -> None:
        self.knobs["daemon"] = mode
        self.save()

    def answer(self, node: str, *lines: str) -> None:
        (self.fake / "nodes" / node).write_text("".join(f"{line}\n" for line in lines))

    # what is there

    def served(self, profile: str = "example.prod") -> Path:
        """The rootimgdir that nodes load from."""
        return self.installdir / "netboot" / OSVERS / ARCH / profile

    def tftp(self, profile: str = "example.prod") -> Path:
        return self.tftpdir / "xcat/osimage" / osimage(profile)

    def tree(self, profile: str = "example.prod") -> Path:
        return self.state / "builds" / osimage(profile) / "tree"

    def calls(self, program: str = "") -> list[dict[str, Any]]:
        """Who was called, with what, in this order."""
        log = self.fake / "calls.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [call for call in map(json.loads, lines) if program in ("", call["program"])]

    def forget(self) -> None:
        (self.fake / "calls.jsonl").unlink(missing_ok=True)

    # runs

    def start(self, argv: Sequence[str], **environment: str) -> subprocess.Popen[Any]:
        """Start a program in a session of its own."""
        return self.launch(argv, {**self.environment, **environment}, cwd=TOP)

    def avsimage(self, *words: str, **environment: str) -> subprocess.Popen[Any]:
        """Start `avsimage -c WORDS…`."""
        return self.start([*warm.MODULE, "-c", *words], **environment)

    def run(self, *words: str, code: Optional[int] = 0, **environment: str) -> Result:
        """Run `avsimage -c WORDS…`; its exit code must be code (None: any)."""
        result = self.finish(self.avsimage(*words, **environment))
        assert code is None or result.code == code, f"{' '.join(words)}: {result}"
        return result

    def program(self, name: str, *words: str, **environment: str) -> Result:
        """Run one of xCAT's programs."""
        path = next(self.root / item for item in xcat.programs() if os.path.basename(item) == name)
        return self.finish(self.start([str(path), *words], **environment))

    def close(self) -> list[str]:
        left = super().close()
        for lock in xcat.LOCKS.glob(f"{str(self.top).replace('/', '.')}*") if xcat.LOCKS.is_dir() else ():
            lock.unlink()
        return left


def contents(*tops: Path) -> dict[str, str]:
    """Every path below some directories, with what it holds: links are not followed."""
    found = {}
    for top in tops:
        for directory, names, files in os.walk(top):
            for name in names + files:
                path = Path(directory, name)
                if path.is_symlink():
                    found[str(path)] = f"-> {os.readlink(path)}"
                elif path.is_file():
                    found[str(path)] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
                else:
                    found[str(path)] = f"{path.lstat().st_mode:o}"
    return found


def unpack(archive: Path, into: Path) -> Path:
    """The tree in an archive; returns into."""
    into.mkdir(parents=True)
    if archive.name == "rootimg.sfs":
        subprocess.run(
            ["unsquashfs", "-q", "-n", "-f", "-d", str(into), str(archive)], check=True, stdout=subprocess.DEVNULL
        )
        return into
    data = (lzma if archive.suffix == ".xz" else gzip).decompress(archive.read_bytes())
    argv = ["cpio", "--quiet", "-idm"] if ".cpio." in archive.name else ["tar", "--xattrs", "--xattrs-include=*", "-x"]
    subprocess.run(argv, cwd=into, input=data, check=True)
    return into


def facts(text: str) -> Mapping[str, str]:
    """NAME='value' lines."""
    return {key: value.strip("'") for key, _, value in (line.partition("=") for line in text.splitlines()) if key}

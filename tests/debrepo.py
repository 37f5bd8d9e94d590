"""Small debs and the index of a repository of them, made with dpkg-deb."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

EPOCH = "1700000000"


class Package(NamedTuple):
    """One deb: what it has at each path, and scripts such as postinst."""

    name: str
    entries: Mapping[str, str] = {}
    version: str = "1.0"
    scripts: Mapping[str, str] = {}
    fields: str = ""  # more lines of its control file


def build_repo(directory: Path, work: Path, packages: Sequence[Package]) -> None:
    """Build the packages below work, and put them and their index (Packages) into directory."""
    directory.mkdir(parents=True)
    index = []
    for package in packages:
        top = work / f"{package.name}_{package.version}"
        (top / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {package.name}\nVersion: {package.version}\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\n"
            f"{package.fields}Description: {package.name}\n"
        )
        (top / "DEBIAN/control").write_text(control)
        configuration = "".join(f"{name}\n" for name in package.entries if name.startswith("/etc/"))
        (top / "DEBIAN/conffiles").write_text(configuration)
        for name, text in package.scripts.items():
            (top / "DEBIAN" / name).write_text(text)
            (top / "DEBIAN" / name).chmod(0o755)
        for name, text in package.entries.items():
            path = top / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if path.parent.name in ("bin", "sbin", "init.d") else 0o644)
        deb = directory / f"{top.name}_all.deb"
        argv = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(top), str(deb)]
        env = {"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": EPOCH}
        subprocess.run(argv, check=True, env=env, stdout=subprocess.DEVNULL)
        sha = hashlib.sha256(deb.read_bytes()).hexdigest()
        index.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha}\n")
    (directory / "Packages").write_text("\n".join(index))

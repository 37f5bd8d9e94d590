"""The packages, built by packaging/build, and their whole life in a clean root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TOP

from integration.conftest import shared
from xcat_avs import __version__

pytestmark = pytest.mark.slow

NEXT = "99.1"
IMAGE = "debian12-x86_64-netboot-example.prod"
# Run in a mount namespace of its own, where the root is a mount and has a /proc.
ENTER = 'mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
CONF = "# of the site\n[xcat]\nuse = no\ndefinitions = /etc/xcat/osimages.stanza\n"
LSDEF = '#!/bin/sh\n[ "$XCATBYPASS" = 1 ] && echo "clustersite: installdir=/site"\n'
# Stands for the interpreter, which no rpm has put into this tree, and for the shell of the scripts. What else the
# package needed, rpm would say.
STAND_IN = """Name: python3.11-of-a-debian-tree
Version: 1
Release: 1
Summary: What xcat-avs needs
License: none
BuildArch: noarch
Provides: python(abi) = 3.11, /bin/sh
%description
%files
"""


def run(*argv: object, **env: str) -> str:
    """What a program says. Fails where it does."""
    done = subprocess.run(
        [str(word) for word in argv], env={**os.environ, **env}, text=True, check=False, timeout=300,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}: {done.stdout}"
    return done.stdout


class Root:
    """A clean root."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def run(self, *argv: str, answers: str = "", code: int = 0) -> str:
        """Run a program in it, as a new login of root has it."""
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(self.top), *argv], check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            input=answers, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, f"{argv}: {done.stdout}"
        return done.stdout

    def avsimage(self, *words: str, code: int = 0) -> str:
        """By name, as profile.d has it."""
        return self.run("sh", "-c", '. /etc/profile.d/xcat-avs.sh; exec avsimage "$@"', "sh", *words, code=code)

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def read(self, path: str) -> str:
        return (self.top / path).read_text()

    def below(self, path: str) -> set[str]:
        return {str(item.relative_to(self.top)) for item in (self.top / path).rglob("*") if not item.is_dir()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Kind and version -> the package: of this version, and of a later one that ships other settings."""
    for program in ("rpmbuild", "dh"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    top = tmp_path_factory.mktemp("packages")
    env = {"PYTHON": sys.executable, "AVS_WHEELS": str(top / "wheels"), "AVS_PACKAGES": str(top / "built")}
    if (TOP / "build/wheels").is_dir():
        shutil.copytree(TOP / "build/wheels", top / "wheels")
    run(TOP / "packaging/build", **env)
    deb, rpm = top / f"built/xcat-avs_{__version__}_all.deb", top / f"built/xcat-avs-{__version__}-1.noarch.rpm"

    tree = top / "later"
    run("dpkg-deb", "-R", deb, tree)
    change(tree / "DEBIAN/control", f"Version: {__version__}", f"Version: {NEXT}")
    change(tree / "opt/xcat/lib/python/avs/xcat_avs/__init__.py", __version__, NEXT)
    change(tree / "etc/xcat/avs.conf", "#[pack]", "#[of the next version]")
    run("dpkg-deb", "-Znone", "-b", tree, top / "later.deb")

    source = top / "source"
    tracked = run("git", "-C", TOP, "-c", f"safe.directory={TOP}", "ls-files", "-z")
    (top / "files").write_text(tracked)
    source.mkdir()
    run("sh", "-c", 'tar -C "$0" --null -T "$1" -c | tar -C "$2" -x', TOP, top / "files", source)
    run("git", "-C", source, "init", "-q")
    run("git", "-C", source, "add", "-A")
    change(source / "xcat_avs/__init__.py", __version__, NEXT)
    change(source / "packaging/avs.conf", "#[pack]", "#[of the next version]")
    run(source / "packaging/build", "rpm", **env, PIP_NO_INDEX="1")  # the libraries are there
    later = top / f"built/xcat-avs-{NEXT}-1.noarch.rpm"
    return {("deb", "now"): deb, ("rpm", "now"): rpm, ("deb", "later"): top / "later.deb", ("rpm", "later"): later}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def root(small_debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A minimal Debian 12 with Python and a store, and nothing else that avsimage may use."""

    def make(top: Path) -> None:
        run("cp", "-a", small_debian, top / "root")
        debs = top / "root/debs"
        (debs / "partial").mkdir(parents=True)
        fetch = ("apt-get", "-qq", "-y", "--no-install-recommends", "--download-only",
                 "-o", f"Dir::State::status={top}/root/var/lib/dpkg/status", "-o", f"Dir::Cache::archives={debs}",
                 "install", "python3", "fsvs", "subversion")  # fmt: skip
        if subprocess.run(fetch, capture_output=True, check=False).returncode:
            run("apt-get", "-qq", "update")  # the lists may be there and old
            run(*fetch)
        # In the order of their names, which is not that of what they need.
        Root(top / "root").run("sh", "-c", "dpkg -i --force-depends,unsafe-io /debs/*.deb && dpkg -C && rm -rf /debs")

    return Root(shared(tmp_path_factory, "root-with-python", make) / "root")


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_life(kind: str, root: Root, packages: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """Install, check, create, upgrade and remove, with a site that has its settings and xCAT already."""
    root.put("etc/xcat/avs.conf", CONF)
    root.put("opt/xcat/bin/lsdef", LSDEF, 0o755)
    root.put("site/custom/avs/avs.conf", "# of the site, too\n")
    put_by_install_xcat(root)
    before = root.below("opt") | root.below("usr") | root.below("etc")

    install(kind, root, packages[kind, "now"], tmp_path)
    assert root.read("etc/xcat/avs.conf") == CONF
    assert not (root.top / "opt/xcat/share/xcat/avs/venv").exists()
    assert root.read("site/postscripts/avsaddons") == (TOP / "share/xcat/avs/avsaddons").read_text()
    assert root.read("site/custom/avs/avs.conf") == "# of the site, too\n"
    assert root.avsimage("-v") == f"avsimage - Version {__version__}\n"
    stanza = root.read("opt/xcat/share/xcat/avs/examples/example.stanza")
    root.put("etc/xcat/osimages.stanza", stanza)
    said = root.avsimage("-c", "check", code=1)
    assert re.search(r"\[ OK \] .*fsvs", said)
    assert "mmdebstrap" in said
    assert "Traceback" not in said
    tree = {"rootimg/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "kernel": "k\n", "initrd-stateless.gz": "i\n"}
    for path, text in tree.items():
        root.put(f"root/tree/{path}", text)
    assert f"Image {IMAGE.rpartition('-')[2]} created" in root.avsimage(
        "-c", "create", "example.prod", "--from", "/root/tree", "-m", kind
    )
    assert "/opt/xcat/share/xcat/avs/recipes/default.conf" in root.avsimage("-c", "steps", "example.prod", "-V")
    answer = root.run(
        "sh", "-c", "for n in 1 2; do /opt/xcat/bin/avsimage --complete bash 1 show ex | tr '\\0' .; done"
    )
    assert "words\nexample.prod\t" in answer  # the second time at the latest

    # A python3 that is too old, as EL 8 and SLES 15 have it, and another one beside it.
    old = "ln -sf python3.6 /usr/bin/python3; ln -s /bin/false /usr/bin/python3.6"
    root.run(
        "sh",
        "-c",
        f"{old}; /opt/xcat/bin/avsimage -v; code=$?; rm /usr/bin/python3.6; ln -sf python3.11 /usr/bin/python3; exit $code",
    )

    install(kind, root, packages[kind, "later"], tmp_path)
    assert root.read("etc/xcat/avs.conf") == CONF
    assert root.avsimage("-v") == f"avsimage - Version {NEXT}\n"
    assert f"{kind}" in root.avsimage("-c", "log", "example.prod")

    remove(kind, root)
    kept = "etc/xcat/avs.conf" if kind == "deb" else "etc/xcat/avs.conf.rpmsave"
    assert root.read(kept) == CONF
    left = root.below("opt") | root.below("usr") | root.below("etc")
    beside = {f"etc/xcat/avs.conf.{name}" for name in ("dpkg-dist", "rpmnew")}  # the packages' own, not taken
    settings = {kept, "etc/xcat/osimages.stanza", "etc/profile.d/xcat-avs.sh", *beside}
    assert {path for path in left - before if "avs" in path or "xcat" in path} <= settings
    assert not (root.top / "site/postscripts/avsaddons").exists()
    assert (root.top / "site/custom/avs/avs.conf").exists()
    assert (root.top / "var/lib/xcat-avs/repo/format").exists()
    shutil.rmtree(root.top / "var/lib/xcat-avs")
    (root.top / kept).unlink()


def test_settings_of_a_package_that_was_never_configured(tmp_path: Path) -> None:
    """The scripts of the package, in the order of dpkg, where what it depends on is missing and it is removed again."""
    settings = tmp_path / "avs.conf"
    settings.write_text(CONF)
    for words in (["preinst", "install"], ["postrm", "remove"]):
        script = (TOP / "packaging/debian" / words[0]).read_text().replace("/etc/xcat/", f"{tmp_path}/")
        run("sh", "-ec", script.replace("/opt/xcat/", "/nonexistent/"), *words)
        assert settings.exists() == (words[0] == "postrm")
    assert settings.read_text() == CONF


def put_by_install_xcat(root: Root) -> None:
    """What install-xcat leaves, as far as it concerns a package."""
    home = "opt/xcat/share/xcat/avs"
    root.put(f"{home}/venv/bin/python", "")
    root.put(f"{home}/install-xcat", (TOP / "share/xcat/avs/install-xcat").read_text(), 0o755)
    root.put(f"{home}/.installed", f"/{home}/venv\n/{home}/install-xcat\n")


def install(kind: str, root: Root, package: Path, tmp_path: Path) -> None:
    """Install it, or the next one over it."""
    if kind == "deb":
        shutil.copy(package, root.top / "package.deb")
        root.run(
            "dpkg", "-i", "--force-unsafe-io", "/package.deb", answers="\n"
        )  # of the question what to do with a changed file: nothing
        return
    rpm = ["rpm", "--force-debian", "--root", root.top, "--dbpath", "/var/lib/rpm"]
    if not (root.top / "var/lib/rpm").exists():
        (tmp_path / "spec").write_text(STAND_IN)
        run("rpmbuild", "--quiet", "-bb", "-D", f"_topdir {tmp_path}", tmp_path / "spec")
        run(*rpm, "--install", *tmp_path.glob("RPMS/noarch/*.rpm"))
    run(*rpm, "--upgrade", package)
    assert run(*rpm, "--verify", "xcat-avs", "--noconfig") == ""


def remove(kind: str, root: Root) -> None:
    if kind == "deb":
        root.run("dpkg", "-r", "xcat-avs")
    else:
        run("rpm", "--force-debian", "--root", root.top, "--dbpath", "/var/lib/rpm", "--erase", "xcat-avs")

"""Images of EL 5 to 7: the real rinse, and a yum in the image, which is the host's dnf packed as an rpm."""

from __future__ import annotations

import http.server
import importlib.util
import io
import marshal
import os
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rpmrepo
from harness import mounts_below

from integration.harness import Installation, copy, look, output

pytestmark = pytest.mark.slow

OSVERS, PROFILE = "centos7", "old"
# What of the host's Python dnf does without, so that the rpm is small.
UNUSED = re.compile(
    r"/(test|tests|idlelib|lib2to3|ensurepip|distutils|pydoc_data|tkinter|turtledemo|__pycache__|config-[^/]*)(/|$)"
)
MODULES = ("dnf", "libdnf", "hawkey", "libcomps", "rpm", "gpg", "dateutil", "six.py", "distro", "unbound.py", "systemd")


def libraries(paths: set[Path]) -> set[Path]:
    """The shared libraries that programs and modules load, the loader among them."""
    done = subprocess.run(["ldd", *map(str, paths)], capture_output=True, text=True, check=False)
    return {Path(name) for name in re.findall(r"(/\S+\.so[.\d]*) \(0x", done.stdout)}


def bytecode(path: Path) -> bytes:
    """A module compiled by the Python that runs it, which is that of these tests; valid whatever its time."""
    code = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(path.read_bytes())
    return code + marshal.dumps(compile(path.read_bytes(), str(path), "exec", dont_inherit=True))


def yum_package() -> rpmrepo.Package:
    """The host's dnf, rpm and Python as one package with /usr/bin/yum."""
    found = {Path("/usr/bin/rpm"), Path("/usr/bin/python3.11"), Path("/bin/sh")}
    stdlib = Path("/usr/lib/python3.11")
    tops = [stdlib, *(Path("/usr/lib/python3/dist-packages", name) for name in MODULES), Path("/usr/lib/rpm")]
    for top in tops:
        found |= {
            path
            for path in ([top] if top.is_file() else top.rglob("*"))
            if path.is_file() and not UNUSED.search(str(path))
        }
    found |= libraries({path for path in found if ".so" in path.name or path.parent.name == "bin"})
    entries: dict[str, bytes | str | None] = {}
    attrs = {}
    compiled = io.BytesIO()  # as Python looks for it; a hundredth of the files, and no run compiles them again
    with zipfile.ZipFile(compiled, "w") as archive:
        for path in sorted(found):
            name = str(path)
            for directory in ("bin", "lib", "lib64"):  # merged into /usr, as in the image
                if name.startswith(f"/{directory}/"):
                    name = f"/usr{name}"
            if path.suffix == ".py" and stdlib in path.parents:
                archive.writestr(f"{path.relative_to(stdlib)}c", bytecode(path))
            elif path.suffix == ".py":
                entries[f"{name}c"] = bytecode(path)
            else:
                entries[name] = path.read_bytes()
            if path.name.startswith("ld-linux") or os.access(path, os.X_OK):
                attrs[name] = "%attr(0755, root, root)"
    entries["/usr/lib/python311.zip"] = compiled.getvalue()
    entries["/usr/bin/yum"] = (
        b"#!/bin/sh\nexec /usr/bin/python3.11 -c 'import sys, dnf.cli.main as m; m.user_main(sys.argv[1:], exit_code=True)' \"$@\"\n"
    )
    entries["/etc/rpm/macros"] = b"%_dbpath /var/lib/rpm\n"
    entries["/lib64"] = "usr/lib64"
    return rpmrepo.Package("yum", entries, tags="Requires: filesystem\n%define _binary_payload w1.gzdio", attrs=attrs)


@pytest.fixture(scope="module")
def old_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small rpms and of a yum that works."""
    for program in ("rinse", "dnf", "rpm", "rpmbuild", "createrepo_c", "rpm2cpio", "wget"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    documented = rpmrepo.Package(
        "documented", {"/usr/share/doc/documented/README": b"read me\n", "/usr/share/data": b"x\n"},
        tags="Requires: filesystem", attrs={"/usr/share/doc/documented/README": "%doc"},
    )  # fmt: skip
    return rpmrepo.build_repo(tmp_path_factory.mktemp("old"), [yum_package(), documented])


@pytest.fixture
def old(installation: Installation, old_repository: Path) -> Installation:
    """An installation with an image of an old release."""
    installation.define(PROFILE, OSVERS, pkgdir=str(old_repository), pkglist=str(installation.top / "old.pkglist"))
    lists(installation, "filesystem\nsetup\nwith-scriptlet\nyum\nredhat-release | bash\n", "kernel-core documented\n")
    return installation


def lists(installation: Installation, base: str, pkglist: str) -> None:
    """What rinse unpacks, and what the image is to have."""
    path = installation.top / "base.packages"
    path.write_text(base)
    (installation.top / "old.pkglist").write_text(pkglist)
    installation.configure("image", rinse_packages=str(path))


def root_of(installation: Installation) -> Path:
    return installation.tree(PROFILE, OSVERS) / "rootimg"


def names(installation: Installation) -> set[str]:
    copied = installation.top / "tmp/rpmdb"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(root_of(installation) / "var/lib/rpm", copied)
    return set(output(["rpm", "--dbpath", str(copied), "-qa", "--qf", "%{NAME}\\n"]).split())


def test_image_with_a_yum_of_its_own(old: Installation) -> None:
    hosts = {name: look(Path(name)) for name in ("/etc/rinse", "/usr/lib/rinse", "/var/cache/rinse")}
    result = old.run("create", PROFILE, "--json")
    root = root_of(old)
    assert result.document["generator"] == "rinse"
    assert names(old) == {"filesystem", "setup", "with-scriptlet", "yum", "bash", "kernel-core", "documented"}
    assert (root / "usr/share/doc/documented/README").exists()
    assert (root / "var/lib/with-scriptlet.ran").read_text() == "ran\n", "rinse runs no scripts; rpm in the image does"
    assert (root / "etc/shadow").stat().st_mode & 0o7777 == 0
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (old.tree(PROFILE, OSVERS) / "kernel").read_bytes() == b"not a kernel\n"
    # Nothing of how it was made is in it.
    assert list(root.glob("*.rpm")) == []
    for name in ("run/avs", "var/cache/dnf", "var/log/yum.log", "etc/yum.repos.d", "etc/resolv.conf", "root/.rpmdb"):
        assert not (root / name).exists(), name
    assert list((root / "dev").iterdir()) == []
    assert [path for path in root.rglob("*") if path.suffix in (".rpmorig", ".rpmsave", ".rpmnew")] == []
    assert not (old.tree(PROFILE, OSVERS).parent / "work").exists()
    assert "Warning" not in result.stderr
    assert {name: look(Path(name)) for name in hosts} == hosts
    old.assert_clean()


def test_packages_of_a_procedure_go_through_the_yum_of_the_image(old: Installation) -> None:
    text = '"""Change packages"""\n\n\ndef run(ctx):\n    ctx.install_packages("needs-nothing")\n    ctx.remove_packages("documented")\n'
    old.site_file("procedures/el7/packages.py", text)
    old.recipe("prepare_image_directory", "generate_image", "packages", profile=PROFILE)
    old.run("create", PROFILE)
    assert names(old) == {"filesystem", "setup", "with-scriptlet", "yum", "bash", "kernel-core", "needs-nothing"}
    log = (old.logs / f"{OSVERS}-x86_64-netboot-{PROFILE}/packages.log").read_text()
    assert re.search(r"^\+ chroot \S+ yum .* install needs-nothing$", log, re.MULTILINE)


def test_image_without_a_yum_is_left_to_the_dnf_of_the_host(old: Installation) -> None:
    lists(old, "filesystem\nsetup\nwith-scriptlet\n", "bash kernel-core\n")
    old.run("create", PROFILE)
    assert names(old) == {"filesystem", "setup", "with-scriptlet", "bash", "kernel-core"}
    assert (root_of(old) / "var/lib/with-scriptlet.ran").exists()
    assert list(root_of(old).glob("*.rpm")) == []


def test_what_is_kept_out(old: Installation) -> None:
    lists(old, "filesystem\nsetup\nyum\nbash\n", "vim-minimal excluded-doc documented\n-bash\n-excluded-doc\n")
    old.configure("image", install_docs="no")
    old.run("create", PROFILE)
    assert names(old) == {"filesystem", "setup", "yum", "vim-minimal", "documented"}
    assert not (root_of(old) / "usr/share/doc/documented/README").exists()
    assert (root_of(old) / "usr/share/data").exists()


def test_unknown_package(old: Installation) -> None:
    lists(old, "filesystem\nsetup\nyum\n", "bash no-such-thing\n")
    error = old.run("create", PROFILE, code=1).error
    assert "no repository has the package no-such-thing" in error
    assert str(old.top / "old.pkglist") in error
    old.assert_clean()


def test_base_that_is_not_there(old: Installation) -> None:
    lists(old, "filesystem\nsetup\nsystemd | upstart\n", "bash\n")
    result = old.run("create", PROFILE)
    assert "the repository has no package systemd or upstart, which rinse was to unpack" in result.stderr
    lists(old, "nothing\nof-it\n", "bash\n")
    error = old.run("create", PROFILE, code=1).error
    assert f"none of the packages of {old.top}/base.packages is in pkgdir" in error
    lists(old, "filesystem\n$(touch /tmp/x)\n", "bash\n")
    assert "is not the name of a package" in old.run("create", PROFILE, code=1).error
    (old.top / "base.packages").unlink()
    assert "name one in [image] rinse_packages" in old.run("create", PROFILE, code=1).error


def test_pkgdir_that_is_no_repository(old: Installation) -> None:
    old.define(PROFILE, OSVERS, pkgdir="")
    assert "names no pkgdir, and rinse needs one" in old.run("create", PROFILE, code=1).error
    old.define(PROFILE, OSVERS, pkgdir=str(old.top / "missing"))
    assert str(old.top / "missing") in old.run("create", PROFILE, code=1).error
    old.define(PROFILE, OSVERS, pkgdir="http://127.0.0.1:9/centos7")
    error = old.run("create", PROFILE, code=1).error
    assert "http://127.0.0.1:9/centos7" in error
    assert mounts_below(old.top) == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that lists directories, and says nothing of it."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url(old_repository: Path, tmp_path: Path) -> Iterator[str]:
    """A copied medium on a web server of this machine: its packages are in Packages."""
    medium = tmp_path / "medium/centos7"
    medium.mkdir(parents=True)
    copy(old_repository, medium / "Packages")
    output(["createrepo_c", "-q", str(medium)])
    shutil.rmtree(medium / "Packages/repodata")
    handler = partial(Quiet, directory=str(tmp_path / "medium"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/centos7"
        server.shutdown()
        thread.join()


def test_medium_on_a_web_server(old: Installation, url: str) -> None:
    """Without a yum in the image; rinse lets wget fetch."""
    lists(old, "filesystem\nsetup\n", "bash kernel-core\n")
    old.define(PROFILE, OSVERS, pkgdir=url)
    old.run("create", PROFILE)
    assert names(old) == {"filesystem", "setup", "bash", "kernel-core"}

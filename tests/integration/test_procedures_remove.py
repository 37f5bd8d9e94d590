"""The procedures that remove, check and tidy, on a real tree of debs and on one of rpms."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rpmrepo
from harness import mounts_below

from integration.harness import PROFILE, Installation, Look, copy, difference, look, marks, output
from integration.test_procedures import add_programs
from xcat_avs.build.context import BuildContext, perform
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import choose
from xcat_avs.recipes.procedure import Layer, load
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings
from xcat_avs.system import mounts
from xcat_avs.system.progress import Progress

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).resolve().parents[2] / "xcat_avs/procedures/common"
DEBIAN = """linux-image-cloud-amd64 systemd locales man-db info python3-minimal cracklib-runtime
libpwquality-common busybox libcap2-bin init-system-helpers"""
NO_INITRD = "#ENV:INITRD=No#\n"  # what takes longest of all, and no test here looks at
MAGIC = b"~Module signature appended~\n"


def context(tree: Path, osvers: str, **attributes: str) -> BuildContext:
    """A build's context on a tree."""
    image = OsImage(f"{osvers}-x86_64-netboot-p", attributes)
    found = load(SHIPPED / "cleanup.py", Layer("shipped", SHIPPED, trusted=True))
    paths = BuildPaths(tree, tree / "results", tree / "logs")
    paths.logs.mkdir(parents=True, exist_ok=True)
    return BuildContext(
        image, Recipe((), Settings()), {}, tree / "install", paths, paths.logs / "log", choose(image, "auto"), None,
        Progress(io.StringIO()), found,
    )  # fmt: skip


def do(ctx: BuildContext, name: str, **options: Any) -> str:
    """Run a shipped procedure with its defaults and these options; returns its log."""
    found = load(SHIPPED / f"{name}.py", Layer("shipped", SHIPPED, trusted=True))
    defaults = {option.name: option.default for option in found.options.values()}
    assert set(options) <= set(defaults)
    ctx.log.write_bytes(b"")
    perform(replace(ctx, procedure=found, options={**defaults, **options}))
    assert mounts_below(ctx.root) == []
    return ctx.log.read_text(errors="replace")


def twice(ctx: BuildContext, name: str, **options: Any) -> tuple[Look, Look]:
    """Run a procedure, and once more to see that it finds nothing to do; returns the tree before and after."""
    before = look(ctx.root)
    do(ctx, name, **options)
    after = look(ctx.root)
    do(ctx, name, **options)
    assert difference(timeless(after), timeless(look(ctx.root))) == {}, f"{name} changes its own result"
    return before, after


def timeless(found: Look) -> Look:
    return {path: facts[:5] for path, facts in found.items()}


def gone(before: Look, after: Look) -> set[str]:
    return before.keys() - after.keys()


def new(before: Look, after: Look) -> set[str]:
    return after.keys() - before.keys()


def same(before: Look, after: Look, *but: str) -> None:
    """All that is in both is as it was, its time as well; but for directories' own, and what matches a pattern."""
    files = {path for path in before.keys() & after.keys() if before[path][0] != 0o040000}
    changed = {path for path in files if before[path] != after[path]}
    assert {path for path in changed if not any(re.fullmatch(pattern, path) for pattern in but)} == set()


def below(paths: set[str], top: str) -> set[str]:
    return {path for path in paths if path.startswith(f"{top}/")}


def write(path: Path, text: str | bytes = "x\n", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


@pytest.fixture(scope="module", autouse=True)
def _machine_is_left_alone() -> Iterator[None]:
    """Whatever procedures do, /etc of this machine stays as it is."""
    before = marks(Path("/etc"))
    yield
    assert difference(before, marks(Path("/etc"))) == {}


@pytest.fixture(scope="session")
def debian_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian 12 with a kernel, by mmdebstrap; tests work on copies."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("not installed: mmdebstrap")
    top = tmp_path_factory.mktemp("debian")
    names = write(top / "pkglist", NO_INITRD + DEBIAN.replace(" ", "\n"))
    ctx = context(top / "tree", "debian12", pkglist=str(names))
    ctx.generate()
    yield ctx.root
    shutil.rmtree(top)


@contextlib.contextmanager
def layered(lower: Path, ctx: BuildContext) -> Iterator[BuildContext]:
    """The root is a tree that changes without changing the one below; a copy would take longer than most tests."""
    layers = ctx.paths.tree / "layers"
    for directory in (ctx.root, layers):
        directory.mkdir()
    with mounts.mounted("none", layers, "tmpfs"):
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
        with mounts.mounted("none", ctx.root, "overlay", options=options):
            yield ctx


@pytest.fixture
def debian(debian_tree: Path, tmp_path: Path) -> Iterator[BuildContext]:
    with layered(debian_tree, context(tmp_path / "debian", "debian12")) as ctx:
        yield ctx


@pytest.fixture(scope="session")
def kernel_tree(debian_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Only the kernel of it."""
    root = tmp_path_factory.mktemp("kernel")
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("/usr/lib")  # an absolute link, that would lead to this machine's
    copy(debian_tree / "boot", root)
    copy(debian_tree / "usr/lib/modules", root / "usr/lib")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def kernel(kernel_tree: Path, tmp_path: Path) -> Iterator[BuildContext]:
    with layered(kernel_tree, context(tmp_path / "kernel", "debian12")) as ctx:
        yield ctx


RPMS = [
    rpmrepo.Package(
        "with-docs",
        {
            "/usr/bin/with-docs": b"#!/bin/sh\n",
            "/usr/share/doc/with-docs/README": b"doc\n",
            "/usr/share/doc/with-docs/copyright": b"licence\n",
            "/usr/share/man/man1/with-docs.1": b"page\n",
            "/usr/share/man/de/man1/with-docs.1": b"Seite\n",
            "/usr/share/info/with-docs.info": b"info\n",
            "/usr/share/locale/de/LC_MESSAGES/with-docs.mo": b"de\n",
            "/usr/share/locale/en_US/LC_MESSAGES/with-docs.mo": b"en\n",
            "/usr/share/locale/sr@latin/LC_MESSAGES/with-docs.mo": b"sr\n",
            "/usr/share/locale/locale.alias": b"alias\n",
            "/usr/lib/locale/de_DE.utf8/LC_TIME": b"de\n",
            "/usr/lib/locale/C.utf8/LC_TIME": b"C\n",
            "/usr/share/i18n/locales/de_DE": b"de\n",
            "/usr/share/i18n/charmaps/UTF-8.gz": b"utf\n",
            "/usr/share/cracklib/pw_dict.pwd": b"words\n",
            "/etc/security/pwquality.conf": b"minlen = 12\n# dictcheck = 1\ndictcheck = 1\n",
            "/usr/share/zoneinfo/Etc/UTC": b"TZif utc\n",
            "/usr/share/zoneinfo/UTC": "Etc/UTC",
            "/usr/share/zoneinfo/Europe/Berlin": b"TZif berlin\n",
            "/usr/share/zoneinfo/Europe/Paris": b"TZif paris\n",
            "/usr/share/zoneinfo/zone.tab": b"table\n",
        },
        attrs={
            "/usr/share/doc/with-docs/README": "%doc",
            "/usr/share/man/man1/with-docs.1": "%doc",
            "/usr/share/locale/de/LC_MESSAGES/with-docs.mo": "%lang(de)",
            "/usr/share/locale/en_US/LC_MESSAGES/with-docs.mo": "%lang(en_US)",
        },
        tags="Requires: filesystem",
    ),
    rpmrepo.Package("python3-libs", {"/usr/lib64/python3.9/os.py": b"import sys\n"}, tags="Requires: filesystem"),
    rpmrepo.Package("python3", {"/usr/bin/python3": b"#!/bin/sh\n"}, tags="Requires: python3-libs"),
    rpmrepo.Package("needs-python", {"/usr/bin/needs-python": b"#!/bin/sh\n"}, tags="Requires: python3"),
    rpmrepo.Package("needs-more", {"/usr/bin/needs-more": b"#!/bin/sh\n"}, tags="Requires: needs-python"),
    rpmrepo.Package("kernel-tools", {"/usr/bin/turbostat": b"#!/bin/sh\n"}, tags="Requires: python3"),
]


@pytest.fixture(scope="session")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("dnf", "rpm", "rpmbuild", "createrepo_c"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    return rpmrepo.build_repo(tmp_path_factory.mktemp("rpms"), RPMS)


@pytest.fixture(scope="session")
def rocky_tree(rpms: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """A tree of rpms; tests work in layers over it."""
    top = tmp_path_factory.mktemp("rocky")
    names = write(top / "pkglist", "filesystem\nsetup\nbash\nkernel-core\nwith-docs\nneeds-more\n")
    ctx = context(top / "tree", "rocky9.4", pkglist=str(names), pkgdir=str(rpms))
    ctx.generate()
    return ctx


@pytest.fixture
def rocky(rocky_tree: BuildContext, tmp_path: Path) -> Iterator[BuildContext]:
    with layered(rocky_tree.root, context(tmp_path / "rocky", "rocky9.4", **rocky_tree.image.attributes)) as ctx:
        yield ctx


def rpm_names(root: Path) -> set[str]:
    return set(output(["rpm", "--dbpath", str(root / "var/lib/rpm"), "-qa", "--qf", "%{NAME}\\n"]).split())


# -- documentation


def test_remove_doc_of_debian(debian: BuildContext) -> None:
    before, after = twice(debian, "remove_doc")
    assert len(gone(before, after)) > 300
    assert gone(before, after) == below(gone(before, after), "usr/share/doc")
    assert new(before, after) == {"etc/dpkg/dpkg.cfg.d/avs-remove_doc"}
    same(before, after)
    left = [path for path in below(set(after), "usr/share/doc") if after[path][0] == 0o100000]
    assert left
    assert {os.path.basename(path) for path in left} == {"copyright"}
    assert before["usr/share/doc/bash/copyright"] == after["usr/share/doc/bash/copyright"]


def install_deb(ctx: BuildContext, *paths: str) -> None:
    """Install a deb with these files, by the image's own dpkg."""
    package = ctx.root.parent / "package"
    for name in paths:
        write(package / name)
    control = "Package: later\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    write(package / "DEBIAN/control", control)
    output(["dpkg-deb", "-b", str(package), str(ctx.root / "later.deb")])
    ctx.chroot(["dpkg", "-i", "/later.deb"])


@pytest.mark.parametrize(
    ("procedure", "left_out", "installed"),
    [
        ("remove_doc", "usr/share/doc/later/README", "usr/share/doc/later/copyright"),
        ("remove_man_pages", "usr/share/man/man1/later.1", "usr/share/doc/later/README"),
        ("remove_info", "usr/share/info/later.info", "usr/share/man/man1/later.1"),
        ("remove_locales", "usr/share/locale/de/LC_MESSAGES/x.mo", "usr/share/locale/en_US/LC_MESSAGES/x.mo"),
        ("remove_locales", "usr/share/man/de/man1/x.1", "usr/share/man/man1/x.1"),
        ("remove_locales", "usr/share/man/pt_BR/man1/x.1", "usr/bin/later"),
    ],
)
@pytest.mark.parametrize("future", [True, False])
def test_dpkg_leaves_them_out_of_later_installs(
    debian: BuildContext, procedure: str, left_out: str, installed: str, future: bool
) -> None:
    do(debian, procedure, future=future)
    install_deb(debian, left_out, installed)
    assert (debian.root / installed).is_file()
    assert (debian.root / left_out).exists() is not future


def test_remove_man_pages_of_debian(debian: BuildContext) -> None:
    before, after = twice(debian, "remove_man_pages")
    assert len(below(gone(before, after), "usr/share/man")) > 500
    left = below(set(after), "usr/share/man")
    assert "usr/share/man/man1" in left, "packages make links in it"
    assert {after[path][0] for path in left} == {0o040000}
    assert not any(re.fullmatch(r"usr/share/man/de.*", path) for path in left)
    same(before, after)
    assert below(gone(before, after), "usr/share/doc") == set()


def test_remove_info_of_debian(debian: BuildContext) -> None:
    before, after = twice(debian, "remove_info")
    assert "usr/share/info/sed.info.gz" in gone(before, after)
    assert gone(before, after) == below(gone(before, after), "usr/share/info")
    assert "usr/share/info" in after
    same(before, after)


def test_documentation_of_rpms(rocky: BuildContext) -> None:
    before, after = twice(rocky, "remove_doc", keep=())
    assert below(set(after), "usr/share/doc") == set()
    assert (rocky.root / "etc/rpm/macros.avs-excludedocs").read_text() == "%_excludedocs 1\n"
    same(before, after)
    before, after = twice(rocky, "remove_man_pages")
    assert below(set(after), "usr/share/man") == {"usr/share/man/man1"}
    before, after = twice(rocky, "remove_info")
    assert gone(before, after) == {"usr/share/info/with-docs.info"}
    assert new(before, after) == set()


@pytest.mark.parametrize("future", [True, False])
def test_rpm_leaves_them_out_of_later_installs(rocky: BuildContext, rpms: Path, future: bool) -> None:
    rocky.remove_packages("with-docs")
    do(rocky, "remove_doc", future=future)
    do(rocky, "remove_locales", future=future, keep=("en_US",))
    macros = [str(path) for path in sorted((rocky.root / "etc").glob("rpm/macros.*"))]
    path = ":".join(["/usr/lib/rpm/macros", *macros])
    package = next(rpms.glob("with-docs-*.rpm"))
    output(["rpm", "--macros", path, "--root", str(rocky.root), "--nodeps", "-i", str(package)])
    share = rocky.root / "usr/share"
    assert (share / "locale/en_US/LC_MESSAGES/with-docs.mo").exists()
    assert (rocky.root / "usr/bin/with-docs").exists()
    assert (share / "locale/de/LC_MESSAGES/with-docs.mo").exists() is not future
    assert (share / "doc/with-docs/README").exists() is not future


# -- locales, zones, dictionaries


def test_remove_locales_of_debian(debian: BuildContext) -> None:
    """The archive is one that the image's own localedef has made."""
    for name in ("en_US", "de_DE", "fr_FR"):
        debian.chroot(["localedef", "-i", name, "-f", "UTF-8", f"{name}.UTF-8"])
    before, after = twice(debian, "remove_locales")
    removed = gone(before, after)
    assert "usr/share/locale/de/LC_MESSAGES" in removed
    assert "usr/share/man/de" in removed
    assert {"usr/share/locale/locale.alias", "usr/lib/locale/C.utf8", "usr/share/man/man1/ls.1.gz"} <= after.keys()
    assert not any(re.match(r"usr/(share|lib)/locale/(?!en|C)[a-z]{2}(_|/|$)", path) for path in after)
    same(before, after, "usr/lib/locale/locale-archive")
    debian.log.write_bytes(b"")
    debian.chroot(["localedef", "--list-archive"])
    assert debian.log.read_text().split("\n")[1:-1] == ["en_US.utf8"]
    do(debian, "remove_locales", keep=("C",))
    assert not (debian.root / "usr/lib/locale/locale-archive").exists(), "nothing is left in it"


def test_remove_locales_of_rpms(rocky: BuildContext) -> None:
    before, after = twice(rocky, "remove_locales", keep=("fr", "en_US"))
    assert {"usr/share/locale/en_US", "usr/share/locale/locale.alias", "usr/lib/locale/C.utf8"} <= after.keys()
    removed = {"usr/share/locale/de", "usr/share/locale/sr@latin", "usr/lib/locale/de_DE.utf8", "usr/share/man/de"}
    assert removed <= gone(before, after)
    text = (rocky.root / "etc/rpm/macros.image-language-conf").read_text()
    assert text == "%_install_langs C:en:en_US:fr\n"


def test_remove_i18n(debian: BuildContext, rocky: BuildContext) -> None:
    before, after = twice(debian, "remove_i18n")
    left = {path for path in below(set(after), "usr/share/i18n") if after[path][0] == 0o100000}
    assert left == {"usr/share/i18n/charmaps/UTF-8.gz"}
    assert gone(before, after) == below(gone(before, after), "usr/share/i18n")
    before, after = twice(rocky, "remove_i18n", keep=())
    assert below(set(after), "usr/share/i18n") == set()


def test_remove_cracklib(debian: BuildContext, rocky: BuildContext) -> None:
    before, after = twice(debian, "remove_cracklib")
    assert "var/cache/cracklib/cracklib_dict.pwd" in gone(before, after)
    assert (debian.root / "etc/security/pwquality.conf").read_text().endswith("\ndictcheck = 0\n")
    same(before, after, "etc/security/pwquality.conf")
    before, after = twice(rocky, "remove_cracklib")
    assert gone(before, after) == {"usr/share/cracklib/pw_dict.pwd"}
    assert (rocky.root / "etc/security/pwquality.conf").read_text() == "minlen = 12\n# dictcheck = 1\ndictcheck = 0\n"


def test_remove_zoneinfo_of_debian(debian: BuildContext) -> None:
    localtime = debian.root / "etc/localtime"
    localtime.unlink()
    localtime.symlink_to("/usr/share/zoneinfo/US/Pacific")  # itself a link, in Debian 12
    before, after = twice(debian, "remove_zoneinfo")
    top = debian.root / "usr/share/zoneinfo"
    assert os.path.realpath(debian.root / "usr/share/zoneinfo/US/Pacific").startswith(str(top))
    assert (top / "US/Pacific").is_file()
    assert (top / "UTC").is_file()
    assert (top / "tzdata.zi").is_file()
    assert "usr/share/zoneinfo/Europe" in gone(before, after)
    assert len(below(set(after), "usr/share/zoneinfo")) < 20
    same(before, after)


def test_remove_zoneinfo_of_rpms(rocky: BuildContext) -> None:
    """A copy, as the old ones have it, is known by its content."""
    write(rocky.root / "etc/localtime", "TZif berlin\n")
    with pytest.raises(AvsError, match="no time zone Europe/Brelin in"):
        do(rocky, "remove_zoneinfo", keep=("Europe/Brelin",))
    before, after = twice(rocky, "remove_zoneinfo", keep=("UTC", "*.tab"))
    assert gone(before, after) == {"usr/share/zoneinfo/Europe/Paris"}
    before, after = twice(rocky, "remove_zoneinfo", keep=("UTC",), localtime=False)
    assert below(set(after), "usr/share/zoneinfo") == {
        f"usr/share/zoneinfo/{name}" for name in ("Etc", "Etc/UTC", "UTC")
    }


# -- packages


def test_remove_python_of_debian(debian: BuildContext) -> None:
    before, after = twice(debian, "remove_python")
    assert not [path for path in after if re.match(r"usr/(bin|lib)/(lib)?python", path)]
    assert "usr/bin/python3.11" in gone(before, after)
    assert "usr/bin/bash" in after
    status = (debian.root / "var/lib/dpkg/status").read_text()
    assert "Package: python3" not in status
    assert "Package: systemd\n" in status


def test_remove_python_of_rpms(rocky: BuildContext) -> None:
    assert rpm_names(rocky.root) >= {"python3", "python3-libs", "needs-python", "needs-more"}
    log = do(rocky, "remove_python")
    assert "removed python3, python3-libs, and with them needs-more, needs-python" in log
    assert rpm_names(rocky.root) == {"filesystem", "setup", "bash", "kernel-core", "with-docs"}
    assert not (rocky.root / "usr/bin/python3").exists()
    assert "nothing to remove" in do(rocky, "remove_python")


def test_remove_python_that_takes_too_much_along(rocky: BuildContext) -> None:
    rocky.install_packages("kernel-tools")
    before = look(rocky.root, skip=("var/lib/rpm",))
    for _ in range(2):
        with pytest.raises(AvsError, match="kernel-tools would go along with Python"):
            do(rocky, "remove_python")
    assert difference(before, look(rocky.root, skip=("var/lib/rpm",))) == {}


def test_remove_python_that_takes_too_much_along_of_debian(debian: BuildContext) -> None:
    before = look(debian.root, skip=("var/cache/apt", "var/log/apt"))
    with pytest.raises(AvsError, match="python3-minimal would go along with Python"):
        do(debian, "remove_python", packages=("libpython3*",), protect=("python3-minimal",))
    assert difference(timeless(before), timeless(look(debian.root, skip=("var/cache/apt", "var/log/apt")))) == {}


def test_remove_python_by_files(debian: BuildContext, rocky: BuildContext) -> None:
    before, after = twice(debian, "remove_python", how="files")
    assert {"usr/bin/python3", "usr/bin/python3.11", "usr/lib/python3.11"} <= gone(before, after)
    assert not [path for path in after if re.match(r"usr/(bin|lib)/(lib)?python", path)]
    assert "Package: python3.11-minimal\n" in (debian.root / "var/lib/dpkg/status").read_text()
    same(before, after)
    before, after = twice(rocky, "remove_python", how="files")
    assert gone(before, after) == {"usr/bin/python3", "usr/lib64/python3.9", "usr/lib64/python3.9/os.py"}
    assert "python3" in rpm_names(rocky.root)


def chrooted(root: Path, *argv: str) -> tuple[int, str, str]:
    done = subprocess.run(["chroot", str(root), *argv], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_remove_package_database_of_debian(debian: BuildContext) -> None:
    shown = chrooted(debian.root, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n")[1].split("\n")
    before, after = twice(debian, "remove_package_database")
    assert "var/lib/dpkg/status" in gone(before, after)
    assert below(set(after), "var/lib/dpkg/info") == set()
    assert new(before, after) == {"etc/avs-packages"}
    same(before, after, "usr/bin/dpkg(-query)?")
    wanted = sorted(line.replace(" ", "_") for line in shown if line)
    assert (debian.root / "etc/avs-packages").read_text().split("\n")[:-1] == wanted
    code, listed, error = chrooted(debian.root, "dpkg", "-l")
    assert (code, error) == (0, "")
    assert sorted(line[4:] for line in listed.split("\n") if line.startswith("ii  ")) == sorted(filter(None, shown))
    rows = [
        line.split()[1] for line in chrooted(debian.root, "dpkg", "-l", "base-*")[1].split("\n") if line[:2] == "ii"
    ]
    assert rows == ["base-files", "base-passwd"]
    assert chrooted(debian.root, "dpkg", "-l", "no-such")[::2] == (1, "dpkg: no packages found matching no-such\n")
    for argv in (["dpkg", "-i", "x.deb"], ["dpkg-query", "-W"], ["dpkg", "-l", "--no-pager"], ["dpkg"]):
        code, _, error = chrooted(debian.root, *argv)
        assert code == 1
        assert "the package database was removed from this image" in error


def test_remove_package_database_of_rpms(rocky: BuildContext) -> None:
    add_programs(rocky.root, "sh")
    wanted = [
        "bash",
        "filesystem",
        "kernel-core",
        "needs-more",
        "needs-python",
        "python3",
        "python3-libs",
        "setup",
        "with-docs",
    ]
    versions = {"kernel-core": "5.14.0"}
    lines = [f"{name}-{versions.get(name, '1.0')}-1.el9.x86_64" for name in wanted]
    before, after = twice(rocky, "remove_package_database")
    assert gone(before, after) == below(set(before), "var/lib/rpm") | below(set(before), "var/lib/dnf")
    assert new(before, after) == {"etc/avs-packages", "usr/bin/rpm"}
    same(before, after)
    assert (rocky.root / "etc/avs-packages").read_text().split("\n")[:-1] == lines
    for argv in (["-qa"], ["-q", "-a"], ["--query", "--all"]):
        assert chrooted(rocky.root, "rpm", *argv) == (0, "".join(f"{line}\n" for line in lines), "")
    assert chrooted(rocky.root, "rpm", "-qa", "python3*", "bash")[1].split() == [lines[0], *lines[5:7]]
    assert chrooted(rocky.root, "rpm", "-q", "python3") == (0, f"{lines[5]}\n", "")
    assert chrooted(rocky.root, "rpm", "-q", "kernel-core-5.14.0")[:2] == (0, f"{lines[2]}\n")
    code, found, _ = chrooted(rocky.root, "rpm", "-q", "kernel", "bash")
    assert (code, found) == (1, f"package kernel is not installed\n{lines[0]}\n")
    for argv in (["-i", "x.rpm"], ["-qi", "bash"], ["-qa", "--last"], ["-V", "bash"], []):
        code, found, error = chrooted(rocky.root, "rpm", *argv)
        assert (code, found) == (1, "")
        assert "the package database was removed from this image" in error


def test_remove_package_database_without_stand_in(rocky: BuildContext) -> None:
    do(rocky, "remove_package_database", stand_in=False, list="/etc/packages")
    assert not (rocky.root / "usr/bin/rpm").exists()
    assert (rocky.root / "etc/packages").is_file()
    assert "nothing to remove" in do(rocky, "remove_package_database")


# -- services


def state(ctx: BuildContext, unit: str) -> str:
    argv = ["systemctl", f"--root={ctx.root}", "is-enabled", unit]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def test_disable_services(debian: BuildContext) -> None:
    assert state(debian, "apt-daily.timer") == "enabled"
    before, after = twice(debian, "disable_services", services=("apt-daily.timer", "systemd-pstore", "getty@tty1"))
    wants = "etc/systemd/system"
    assert (
        gone(before, after)
        == {
            f"{wants}/timers.target.wants/apt-daily.timer",
            f"{wants}/sysinit.target.wants/systemd-pstore.service",
            f"{wants}/getty.target.wants/getty@tty1.service",
            f"{wants}/sysinit.target.wants",
            f"{wants}/getty.target.wants",
        }
        & before.keys()
    )
    same(before, after)
    preset = (debian.root / "etc/systemd/system-preset/10-avs-disable.preset").read_text()
    assert preset == "disable apt-daily.timer\ndisable getty@tty1.service\ndisable systemd-pstore.service\n"
    assert state(debian, "apt-daily.timer") == "disabled"
    # What is enabled by presets later is still not enabled.
    output(["systemctl", f"--root={debian.root}", "preset", "apt-daily.timer"])
    assert state(debian, "apt-daily.timer") == "disabled"
    twice(debian, "disable_services", services=("systemd-pstore",), mask=True)
    assert os.readlink(debian.root / wants / "systemd-pstore.service") == "/dev/null"
    with pytest.raises(AvsError, match="systemctl failed"):
        do(debian, "enable_services", services=("systemd-pstore",))


def test_enable_services(debian: BuildContext) -> None:
    assert state(debian, "systemd-networkd") == "disabled"
    before, after = twice(debian, "enable_services", services=("systemd-networkd",))
    assert state(debian, "systemd-networkd") == "enabled"
    link = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    assert after[link][4] == "/lib/systemd/system/systemd-networkd.service"
    assert gone(before, after) == set()
    preset = debian.root / "etc/systemd/system-preset/10-avs-enable.preset"
    assert preset.read_text() == "enable systemd-networkd.service\n"


@pytest.mark.parametrize("name", ["disable_services", "enable_services"])
def test_unknown_service(debian: BuildContext, name: str) -> None:
    with pytest.raises(
        AvsError, match=r"no service systemd-netword in the image \(did you mean systemd-networkd"
    ) as err:
        do(debian, name, services=("systemd-netword",))
    assert "systemd-timedated" in str(err.value)
    before, after = twice(debian, name, services=("systemd-netword",), missing="ignore")
    assert difference(timeless(before), timeless(after)) == {}


def test_services_where_a_link_leads_out(debian: BuildContext, tmp_path: Path) -> None:
    shutil.rmtree(debian.root / "etc/systemd/system")
    (tmp_path / "host").mkdir()
    (debian.root / "etc/systemd/system").symlink_to(tmp_path / "host")
    with pytest.raises(AvsError, match="/etc/systemd/system of the image is a link"):
        do(debian, "enable_services", services=("systemd-networkd",))
    assert list((tmp_path / "host").iterdir()) == []


INIT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: old-daemon
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
"""


def test_services_of_init_scripts(debian: BuildContext) -> None:
    """By the image's own update-rc.d."""
    write(debian.root / "etc/init.d/old-daemon", INIT, 0o755)
    before, after = twice(debian, "enable_services", services=("old-daemon",))
    assert {f"etc/rc{level}.d/S01old-daemon" for level in range(2, 6)} <= new(before, after)
    before, after = twice(debian, "disable_services", services=("old-daemon",))
    assert {f"etc/rc{level}.d/S01old-daemon" for level in range(2, 6)} <= gone(before, after)
    assert "etc/rc3.d/K01old-daemon" in after
    before, after = twice(debian, "disable_services", services=("old-daemon",), mask=True)
    assert not [path for path in after if "old-daemon" in path and path.startswith("etc/rc")]
    assert "etc/init.d/old-daemon" in after


def test_services_by_chkconfig(rocky: BuildContext) -> None:
    """EL 5 and 6 have it; what the image's own is called with."""
    add_programs(rocky.root, "sh")
    write(rocky.root / "sbin/chkconfig", '#!/bin/sh\necho "$*" >>/called\n', 0o755)
    write(rocky.root / "etc/rc.d/init.d/sendmail", INIT, 0o755)
    do(rocky, "disable_services", services=("sendmail",))
    do(rocky, "disable_services", services=("sendmail",), mask=True)
    do(rocky, "enable_services", services=("sendmail",))
    called = (rocky.root / "called").read_text().split("\n")[:-1]
    assert called == ["sendmail off", "--del sendmail", "--add sendmail", "sendmail on"]
    write(rocky.root / "sbin/chkconfig", "#!/bin/sh\nexit 3\n", 0o755)
    with pytest.raises(AvsError, match="exit code 3"):
        do(rocky, "disable_services", services=("sendmail",))


# -- kernels


def version(ctx: BuildContext) -> str:
    return os.listdir(ctx.root / "usr/lib/modules")[0]


def module(ctx: BuildContext, name: str) -> Path:
    return next((ctx.root / "usr/lib/modules").rglob(f"{name}.ko*"))


def test_check_kernel_symbols_by_the_kernel_itself(kernel: BuildContext) -> None:
    """Debian's System.map is a stub; what the kernel exports is read from it."""
    assert b"__ksymtab_" not in (kernel.root / f"boot/System.map-{version(kernel)}").read_bytes()
    before = look(kernel.root)
    log = do(kernel, "check_kernel_symbols")
    assert re.search(rf"kernel {re.escape(version(kernel))}: \d{{3,}} modules have all their symbols", log)
    assert difference(before, look(kernel.root)) == {}
    module(kernel, "libcrc32c").unlink()
    with pytest.raises(AvsError, match="have unresolved symbols") as err:
        do(kernel, "check_kernel_symbols")
    assert "nf_conntrack.ko needs crc32c" in str(err.value)
    assert version(kernel) in str(err.value)
    do(kernel, "check_kernel_symbols", ignore=(version(kernel),))


def test_check_kernel_symbols_of_compressed_modules(kernel: BuildContext) -> None:
    for name, program in (("nf_conntrack", "xz"), ("nf_nat", "gzip"), ("llc", "zstd")):
        path = module(kernel, name)
        output([program, "-q", str(path)])
        path.unlink(missing_ok=True)
    assert "modules have all their symbols" in do(kernel, "check_kernel_symbols")
    module(kernel, "libcrc32c").unlink()
    with pytest.raises(AvsError, match=r"nf_conntrack\.ko needs crc32c"):
        do(kernel, "check_kernel_symbols")


def few_modules(ctx: BuildContext) -> None:
    """Leave some modules that need each other."""
    kept = {"8021q.ko", "garp.ko", "mrp.ko", "stp.ko", "llc.ko"}
    for path in (ctx.root / "usr/lib/modules").rglob("*.ko"):
        if path.name not in kept:
            path.unlink()


def versions(ctx: BuildContext) -> dict[str, str]:
    """What the modules need of the kernel, with the checksum of each."""
    found: dict[str, str] = {}
    for path in (ctx.root / "usr/lib/modules").rglob("*.ko"):
        rows = [line.split() for line in output(["modprobe", "--dump-modversions", str(path)]).split("\n") if line]
        found.update({row[1]: row[0] for row in rows})
    own = set(output(["sh", "-c", f"nm {ctx.root}/usr/lib/modules/*/kernel/net/*/*.ko"]).split())
    return {name: crc for name, crc in found.items() if f"__ksymtab_{name}" not in own}


def test_check_kernel_symbols_by_symvers(kernel: BuildContext) -> None:
    """As EL has it: boot/symvers-VERSION.gz, whose checksums count as well."""
    few_modules(kernel)
    table = versions(kernel)
    path = kernel.root / f"boot/symvers-{version(kernel)}"
    lines = [f"{crc}\t{name}\tvmlinux\tEXPORT_SYMBOL\t" for name, crc in table.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    output(["gzip", str(path)])
    assert "5 modules have all their symbols, by -E Module.symvers" in do(kernel, "check_kernel_symbols")
    path.write_text("".join(f"{line}\n" for line in lines).replace(table["_printk"], "0x00000001"))
    with pytest.raises(AvsError, match="needs _printk"):
        do(kernel, "check_kernel_symbols")
    path.write_text("".join(f"{line}\n" for line in lines if "\t_printk\t" not in line))
    with pytest.raises(AvsError, match=r"8021q\.ko needs _printk"):
        do(kernel, "check_kernel_symbols")


def test_check_kernel_symbols_by_system_map(kernel: BuildContext) -> None:
    few_modules(kernel)
    symbols = list(versions(kernel))
    path = kernel.root / f"boot/System.map-{version(kernel)}"
    path.write_text("".join(f"ffffffff82000000 r __ksymtab_{name}\n" for name in symbols))
    assert "by -F System.map-" in do(kernel, "check_kernel_symbols")
    path.write_text(path.read_text().replace("__ksymtab_rtnl_lock\n", "rtnl_lock\n"))
    with pytest.raises(AvsError, match="needs rtnl_lock"):
        do(kernel, "check_kernel_symbols")


def test_check_kernel_symbols_through_links_of_the_image(kernel: BuildContext) -> None:
    """Modules for other kernels are absolute links (weak-updates); the module of the image counts, not the machine's."""
    top = kernel.root / f"usr/lib/modules/{version(kernel)}"
    away = kernel.root / "opt/libcrc32c.ko"
    away.parent.mkdir()
    module(kernel, "libcrc32c").rename(away)
    (top / "weak-updates").mkdir()
    (top / "weak-updates/libcrc32c.ko").symlink_to("/opt/libcrc32c.ko")
    # A directory of another kernel, that is not there, from which such modules come.
    write(kernel.root / "usr/lib/modules/5.0.0-1/extra/some.ko", module(kernel, "llc").read_bytes())
    assert "modules have all their symbols" in do(kernel, "check_kernel_symbols")


def test_check_kernel_symbols_with_nothing_to_check_against(kernel: BuildContext) -> None:
    (kernel.root / f"boot/vmlinuz-{version(kernel)}").write_bytes(b"not a kernel")
    with pytest.raises(AvsError, match=r"install its headers, or set \[check_kernel_symbols\] strict = no"):
        do(kernel, "check_kernel_symbols")
    assert "NOT CHECKED" in do(kernel, "check_kernel_symbols", strict=False)


def test_check_kernel_symbols_without_modules_dep(kernel: BuildContext) -> None:
    (kernel.root / "boot/vmlinuz-9.9.9-other").write_bytes(b"a kernel")
    with pytest.raises(AvsError, match=r"kernel 9\.9\.9-other has no /lib/modules/9\.9\.9-other/modules\.dep"):
        do(kernel, "check_kernel_symbols")
    (kernel.root / "boot/vmlinuz-9.9.9-other").unlink()
    (kernel.root / f"usr/lib/modules/{version(kernel)}/modules.dep").unlink()
    with pytest.raises(AvsError, match=re.escape(version(kernel))):
        do(kernel, "check_kernel_symbols")
    shutil.rmtree(kernel.root / "usr/lib/modules")
    shutil.rmtree(kernel.root / "boot")
    assert "no kernel in the image" in do(kernel, "check_kernel_symbols")


@pytest.fixture
def signing(tmp_path: Path) -> dict[str, str]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=site", "-days", "2"]
    output([*argv, "-keyout", str(key), "-out", str(certificate)])
    return {"key": str(key), "certificate": str(certificate)}


def parts(data: bytes) -> tuple[bytes, bytes]:
    """A signed module: what is signed, and the last signature."""
    assert data.endswith(MAGIC)
    end = len(data) - len(MAGIC)
    start = end - 12 - int.from_bytes(data[end - 4 : end], "big")
    return data[:start], data[start : end - 12]


def content(path: Path) -> bytes:
    program = {".xz": "xz", ".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    return (
        subprocess.run([program, "-dc", str(path)], stdout=subprocess.PIPE, check=True).stdout
        if program
        else path.read_bytes()
    )


def test_sign_kernel_modules(kernel: BuildContext, signing: dict[str, str], tmp_path: Path) -> None:
    few_modules(kernel)
    for name, program in (("garp", "xz"), ("mrp", "gzip"), ("stp", "zstd")):
        path = module(kernel, name)
        output([program, "-q", str(path)])
        path.unlink(missing_ok=True)
    paths = [module(kernel, name) for name in ("8021q", "garp", "mrp", "stp", "llc")]
    assert {path.suffix for path in paths} == {".ko", ".xz", ".gz", ".zst"}
    paths[0].chmod(0o640)
    originals = {path: parts(content(path))[0] for path in paths}
    before, after = twice(kernel, "sign_kernel_modules", **signing)
    assert before.keys() == after.keys()
    assert {str(path.relative_to(kernel.root)) for path in paths} == {
        path for path in after if before[path][4] != after[path][4]
    }
    assert paths[0].stat().st_mode & 0o7777 == 0o640
    for path, original in originals.items():
        plain, signature = parts(content(path))
        assert plain == original, "it was changed otherwise, or has its old signature still"
        (tmp_path / "plain").write_bytes(plain)
        (tmp_path / "signature").write_bytes(signature)
        files = ["-in", str(tmp_path / "signature"), "-content", str(tmp_path / "plain"), "-out", "/dev/null"]
        output(["openssl", "cms", "-verify", "-binary", "-inform", "DER", *files, "-noverify", "-nointern",
                "-certfile", signing["certificate"]])  # fmt: skip
    secret = Path(signing["key"]).read_bytes()
    assert not [path for path in kernel.root.rglob("*") if path.is_file() and secret[100:200] in path.read_bytes()]


def test_sign_kernel_modules_by_pattern_and_stripped(kernel: BuildContext, signing: dict[str, str]) -> None:
    few_modules(kernel)
    before = look(kernel.root)
    do(kernel, "sign_kernel_modules", modules=("*/llc/*",), strip=True, hash="sha512", **signing)
    changed = [path for path, _ in difference(timeless(before), timeless(look(kernel.root))).items()]
    assert [os.path.basename(path) for path in changed] == ["llc.ko"]
    assert "modules have all their symbols" in do(kernel, "check_kernel_symbols")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"key": ""}, r"\[sign_kernel_modules\] key = "),
        ({"certificate": "/no/such"}, "certificate = /no/such in the recipe is no file"),
        ({"sign_file": "/no/such"}, "there is no /no/such"),
        ({"hash": "sha0"}, "sh failed with exit code"),
        ({"sign_file": "/bin/true"}, "/bin/true has put no signature on .*8021q.ko"),
    ],
)
def test_sign_kernel_modules_fails(
    kernel: BuildContext, signing: dict[str, str], change: dict[str, str], text: str
) -> None:
    few_modules(kernel)
    before = look(kernel.root)
    with pytest.raises((RuntimeError, AvsError), match=text):
        do(kernel, "sign_kernel_modules", **{**signing, **change})
    assert difference(before, look(kernel.root)) == {}, "half of it was done"


def test_sign_kernel_modules_with_a_key_in_the_image(kernel: BuildContext, signing: dict[str, str]) -> None:
    shutil.copy(signing["key"], kernel.root / "boot/key.pem")
    with pytest.raises(AvsError, match="lies in the image"):
        do(kernel, "sign_kernel_modules", **{**signing, "key": str(kernel.root / "boot/key.pem")})


# -- reports and tidying


def test_report_setuid(debian: BuildContext) -> None:
    ping = write(debian.root / "usr/bin/tool", "x", 0o755)
    output(["setcap", "cap_net_raw,cap_sys_admin+ep", str(ping)])
    before = look(debian.root)
    log = do(debian, "report_setuid")
    assert difference(before, look(debian.root)) == {}
    lines = debian.paths.report("report_setuid").read_text().split("\n")[:-1]
    assert [line for line in log.split("\n") if line] == lines
    found = output(["find", str(debian.root), "-xdev", "-type", "f", "-perm", "/6000"]).split()
    wanted = {f"/{os.path.relpath(path, debian.root)}" for path in found} | {"/usr/bin/tool"}
    assert {line.split(":")[0] for line in lines} == wanted
    assert "/usr/bin/su: setuid 0" in lines
    assert "/usr/bin/tool: cap_net_raw,cap_sys_admin=ep" in lines
    with pytest.raises(AvsError, match="not in allowed: /usr/bin/tool;"):
        do(debian, "report_setuid", allowed=tuple(path[1:] for path in wanted - {"/usr/bin/tool"}))
    do(debian, "report_setuid", allowed=("usr/*",))


def test_cleanup_of_debian(debian: BuildContext) -> None:
    root = debian.root
    removed = (
        "var/lib/urandom/random-seed",
        "etc/passwd-",
        "etc/shadow-",
        "var/lib/dpkg/status-old",
        "tmp/x",
        "var/cache/zypp/a/b",
    )
    emptied = ("var/spool/anacron/cron.daily", "var/log/some.log", "etc/machine-id")
    kept = ("etc/issue.dpkg-old", "etc/app.conf.rpmnew", "usr/lib64/libsoftokn3.chk")
    for name in (*removed, *emptied, *kept):
        write(root / name)
    before, after = twice(debian, "cleanup")
    assert set(removed) <= gone(before, after)
    assert [(root / name).read_bytes() for name in emptied] == [b"", b"", b""]
    assert [(root / name).read_text() for name in kept] == ["x\n", "x\n", "x\n"]
    assert {"etc/passwd", "etc/shadow", "var/lib/dpkg/status"} <= after.keys()
    places = r"(var/(cache|log|lib|spool/anacron)|tmp|etc/[a-z]+-)(/.*)?"
    assert {path for path in gone(before, after) if not re.fullmatch(places, path)} == set()
    same(before, after, "var/log/.*", "var/spool/anacron/.*", "etc/machine-id")
    assert new(before, after) == set()
    before, after = twice(debian, "cleanup", leftovers=True, nss_checks=True)
    assert gone(before, after) == set(kept)
    same(before, after)


def test_cleanup_puts_busybox_in_place(debian: BuildContext) -> None:
    before, after = twice(debian, "cleanup", busybox=("vi", "grep", "mount"))
    for name in ("vi", "grep", "mount"):
        assert after[f"usr/bin/{name}"][4] == "/usr/bin/busybox"
    code, text, _ = chrooted(debian.root, "grep", "-c", "root", "/etc/passwd")
    assert (code, text) == (0, "1\n")
    assert before["usr/bin/busybox"] == after["usr/bin/busybox"]
    for name in ("no-such-tool", "busybox"):
        with pytest.raises(AvsError, match=f"the busybox of the image is no {name}"):
            do(debian, "cleanup", busybox=(name,))
    (debian.root / "usr/bin/busybox").unlink()
    with pytest.raises(AvsError, match="no busybox in the image"):
        do(debian, "cleanup", busybox=("vi",))


# -- the command


def test_image_built_with_these_steps(installation: Installation, rpms: Path) -> None:
    """A second build makes no revision, so nothing that they do depends on the time."""
    names = write(installation.top / "pkglist", "filesystem\nsetup\nbash\nkernel-core\nwith-docs\nneeds-more\n")
    installation.define(PROFILE, pkglist=str(names), pkgdir=str(rpms))
    steps = ["remove_python", "remove_doc", "remove_man_pages", "remove_info", "remove_i18n", "remove_cracklib",
             "remove_locales", "remove_zoneinfo", "report_setuid", "remove_package_database", "cleanup"]  # fmt: skip
    more = "\n[remove_locales]\nkeep = en_US, fr\n\n[remove_zoneinfo]\nkeep = UTC\n"
    installation.recipe("prepare_image_directory", "generate_image", *steps, more=more)
    report = installation.run("create", PROFILE).stdout
    rows = {line.split()[0]: line.split() for line in report.splitlines() if line.split()[0:1]}
    assert rows["remove_python"][2] == "-4"
    assert rows["remove_package_database"][4] == "0"
    root = installation.tree() / "rootimg"
    assert not (root / "usr/share/doc/with-docs/README").exists()
    assert (root / "etc/avs-packages").read_text().startswith("bash-1.0-1.el9.x86_64\n")
    before = installation.youngest()
    assert "no new revision" in installation.run("create", PROFILE).stdout
    assert installation.youngest() == before
    write(root / "usr/share/doc/again")
    write(installation.site / f"images/{PROFILE}/recipe.conf",
          (installation.site / f"images/{PROFILE}/recipe.conf").read_text() + "\n[remove_doc]\nkeep = none\n")  # fmt: skip
    installation.run("create", PROFILE, "-b")
    assert not (root / "usr/share/doc/again").exists(), "a step that is repeated on its own result"
    installation.recipe(
        "prepare_image_directory", "generate_image", "remove_zoneinfo", more="\n[remove_zoneinfo]\nkeep = Atlantis\n"
    )
    error = installation.run("create", PROFILE, code=1)
    assert "step remove_zoneinfo failed" in error.error
    assert "no time zone Atlantis" in error.error

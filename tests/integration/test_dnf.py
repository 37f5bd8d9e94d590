"""Images of rpms, built by the real dnf from a local repository of small packages."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import rpmrepo

from integration.harness import (
    ADDED,
    OSVERS,
    PROFILE,
    Installation,
    difference,
    look,
    osimage_name,
    output,
    served_set,
    unpack_cpio,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def rocky(installation: Installation, repository: Path) -> Installation:
    """An installation whose image takes some packages from the repository."""
    pkglist(installation, "filesystem setup", "bash", "kernel-core", "vim-minimal")
    installation.define(PROFILE, pkgdir=str(repository))
    return installation


@pytest.fixture(scope="session")
def documented(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A repository of a package with documentation and messages in two languages."""
    files: dict[str, bytes | str | None] = {
        "/usr/share/doc/documented/README": b"read me\n",
        "/usr/share/locale/de/x.mo": b"x\n",
        "/usr/share/locale/fr/x.mo": b"x\n",
        "/usr/share/documented": b"x\n",
    }
    attrs = {name: f"%lang({name.split('/')[4]})" for name in files if "locale" in name}
    attrs["/usr/share/doc/documented/README"] = "%doc"
    package = rpmrepo.Package("documented", files, tags="Requires: filesystem", attrs=attrs)
    return rpmrepo.build_repo(tmp_path_factory.mktemp("documented"), [package])


def pkglist(installation: Installation, *lines: str) -> Path:
    path = installation.top / "rocky.pkglist"
    path.write_text("# a list\n\n" + "".join(f"{line}\n" for line in lines))
    installation.define(PROFILE, pkglist=str(path))
    return path


def create(installation: Installation, *argv: str, code: int | None = 0) -> tuple[str, str]:
    result = installation.run("create", PROFILE, *argv, code=code)
    return result.stdout, result.stderr if code == 0 else result.error


def names(installation: Installation) -> set[str]:
    """The packages in the image, asked of its database by the machine's rpm."""
    root = installation.tree() / "rootimg"
    database = next(path for path in ("usr/lib/sysimage/rpm", "var/lib/rpm") if (root / path).is_dir())
    # A copy: to ask may write.
    copied = installation.top / "tmp/rpmdb"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(root / database, copied)
    return set(output(["rpm", "--dbpath", str(copied), "-qa", "--qf", "%{NAME}\\n"]).split())


def row(text: str, step: str) -> list[str]:
    """A line of the report's table."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [step])


def test_image_of_packages(rocky: Installation, tmp_path: Path) -> None:
    stdout, stderr = create(rocky)
    tree = rocky.tree()
    root = tree / "rootimg"
    assert stderr == ""
    assert (root / "usr/bin/bash").read_bytes() == b"#!/bin/sh\n"
    assert (root / "bin").is_symlink()
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "etc/shadow").stat().st_mode & 0o7777 == 0
    assert (tree / "kernel").read_bytes() == b"not a kernel\n"
    assert (tree / "initrd-stateless.gz").read_bytes() == (root / f"boot/initramfs-{rpmrepo.KVER}.img").read_bytes()
    assert names(rocky) == {"filesystem", "setup", "bash", "kernel-core", "vim-minimal"}
    assert row(stdout, "PROCEDURE")[:6] == ["PROCEDURE", "NAME", "TIME", "+/-", "RPMS", "+/-"]
    step, total = row(stdout, "generate_image"), row(stdout, "TOTAL")
    assert (step[2], step[4]) == ("5", "5")
    assert (total[2], total[4]) == ("5", "5")
    # Nothing of how it was made is in it, and nothing is left beside it.
    for name in ("var/cache/dnf", "var/log/dnf.log", "var/lib/dnf", "work", "etc/yum.repos.d", "root/.rpmmacros"):
        assert not (root / name).exists(), name
    assert sorted(path.name for path in tree.parent.iterdir() if path.name != "journal") == ["results", "tree"]

    rocky.run("tag", PROFILE, "-t", "t1")
    rocky.run("pack", PROFILE, "-t", "t1")
    unpack_cpio(rocky.served() / "rootimg.cpio.gz", tmp_path / "node")
    root = rocky.tree() / "rootimg"
    assert difference(look(root, times=False), look(tmp_path / "node", times=False)).keys() <= ADDED
    assert set(served_set(rocky.served())) == {
        "avs.json", "directory", "initrd-stateless.gz", "kernel", "rootimg.cpio.gz",
    }  # fmt: skip


def test_second_build_makes_no_revision(rocky: Installation) -> None:
    create(rocky)
    before = rocky.youngest()
    tree = look(rocky.tree() / "rootimg", times=False)
    stdout, _ = create(rocky)
    assert difference(tree, look(rocky.tree() / "rootimg", times=False)) == {}
    assert "no new revision" in stdout
    assert rocky.youngest() == before


def test_package_kept_out(rocky: Installation) -> None:
    pkglist(rocky, "filesystem bash", "excluded-doc", "-excluded-doc")
    create(rocky)
    assert names(rocky) == {"filesystem", "setup", "bash"}


def test_dependency_kept_out_is_an_error(rocky: Installation) -> None:
    pkglist(rocky, "bash", "-setup")
    _, error = create(rocky, code=1)
    assert "setup" in error
    assert "excluded" in error or "filtered out" in error, "not said why bash cannot be installed"


def test_group_include_and_environment(rocky: Installation) -> None:
    included = rocky.top / "lists/more.pkglist"
    included.parent.mkdir()
    included.write_text("bash  # for people\n#ENV:FOO=bar#\n")
    pkglist(rocky, "@core", "#INCLUDE:lists/more.pkglist#", "needs-nothing,vim-minimal")
    create(rocky)
    assert names(rocky) == {"filesystem", "setup", "bash", "needs-nothing", "vim-minimal"}


def test_group_member_kept_out(rocky: Installation) -> None:
    pkglist(rocky, "@core", "-setup")
    create(rocky)
    assert names(rocky) == {"filesystem"}


def test_otherpkgs(rocky: Installation, other_repository: Path) -> None:
    others = rocky.top / "rocky.otherpkgs.pkglist"
    others.write_text("post/site-tool\n-vim-minimal\n")
    rocky.define(PROFILE, otherpkglist=str(others), otherpkgdir=str(other_repository))
    create(rocky)
    assert names(rocky) == {"filesystem", "setup", "bash", "kernel-core", "site-tool"}


def test_otherpkgdir_above_its_repositories(rocky: Installation, other_repository: Path) -> None:
    """As xCAT has it: otherpkglist names paths below otherpkgdir, each directory with its own repodata."""
    others = rocky.top / "rocky.otherpkgs.pkglist"
    others.write_text("post/site-tool\n")
    rocky.define(PROFILE, otherpkglist=str(others), otherpkgdir=str(other_repository.parent))
    create(rocky)
    assert "site-tool" in names(rocky)


def test_otherpkgdir_that_is_not_there(rocky: Installation) -> None:
    """xCAT names one in every definition."""
    rocky.define(PROFILE, otherpkgdir=str(rocky.top / "install/post/otherpkgs/rocky9.4/x86_64"))
    create(rocky)


def test_copied_medium_with_two_repositories(rocky: Installation, repository: Path, other_repository: Path) -> None:
    medium = rocky.top / "medium"
    medium.mkdir()
    (medium / "BaseOS").symlink_to(repository)
    (medium / "AppStream").symlink_to(other_repository)
    pkglist(rocky, "bash", "site-tool")
    rocky.define(PROFILE, pkgdir=str(medium))
    create(rocky)
    assert names(rocky) == {"filesystem", "setup", "bash", "site-tool"}


def test_pkgdir_as_a_url(rocky: Installation, repository: Path) -> None:
    rocky.define(PROFILE, pkgdir=repository.as_uri())
    create(rocky)
    assert "bash" in names(rocky)


def test_unknown_package(rocky: Installation) -> None:
    path = pkglist(rocky, "bash", "no-such-thing", "vim-minimal", "nor-this")
    stdout, error = create(rocky, code=1)
    assert "no repository has the package" in error
    assert "no-such-thing" in error.splitlines()[0]
    assert "nor-this" in error.splitlines()[0]
    assert str(path) in error
    assert osimage_name(PROFILE) in error
    assert "prepare_image_directory" in stdout
    assert rocky.youngest() == 1
    assert "-b" in error

    pkglist(rocky, "bash", "vim-minimal")
    create(rocky, "-b")
    assert "bash" in names(rocky)


def test_unknown_group(rocky: Installation) -> None:
    path = pkglist(rocky, "@no-such-group", "bash")
    _, error = create(rocky, code=1)
    assert "no-such-group" in error.splitlines()[0]
    assert str(path) in error


def test_missing_pkglist(rocky: Installation) -> None:
    (rocky.top / "rocky.pkglist").unlink()
    _, error = create(rocky, code=1)
    assert str(rocky.top / "rocky.pkglist") in error
    assert "No such file" in error


def test_empty_pkglist(rocky: Installation) -> None:
    path = pkglist(rocky)
    _, error = create(rocky, code=1)
    assert str(path) in error, "the error does not say what is wrong with the list"


def test_pkgdir_that_is_not_there(rocky: Installation) -> None:
    rocky.define(PROFILE, pkgdir=str(rocky.top / "missing"))
    _, error = create(rocky, code=1)
    assert str(rocky.top / "missing") in error
    assert "repo" in error


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/rocky", "file:///nowhere/at/all"])
def test_pkgdir_that_cannot_be_reached(rocky: Installation, url: str) -> None:
    rocky.define(PROFILE, pkgdir=url)
    _, error = create(rocky, code=1)
    assert url in error
    assert "log: " in error
    log = Path(error.split("log: ", 1)[1].strip())
    assert log.is_file()
    rocky.assert_clean()


def test_resume_after_the_repository_is_back(rocky: Installation, repository: Path) -> None:
    """The definition is the same before and after, so the build goes on with generate_image."""
    link = rocky.top / "mirror"
    link.symlink_to(rocky.top / "nowhere")
    rocky.define(PROFILE, pkgdir=link.as_uri())
    create(rocky, code=1)
    link.unlink()
    link.symlink_to(repository)
    _, stderr = create(rocky, "-b")
    assert "prepare_image_directory: done before" in stderr
    assert names(rocky) == {"filesystem", "setup", "bash", "kernel-core", "vim-minimal"}


def test_failing_scriptlet_is_a_warning(rocky: Installation) -> None:
    pkglist(rocky, "bash", "bad-scriptlet", "with-scriptlet")
    _, stderr = create(rocky)
    warnings = [line for line in stderr.splitlines() if line.startswith("Warning: ")]
    assert any("bad-scriptlet" in line for line in warnings), stderr
    root = rocky.tree() / "rootimg"
    assert (root / "var/lib/with-scriptlet.ran").read_text() == "ran\n"
    # What scripts saw is gone, and the rights are those of the package that owns the four.
    points = [root / name for name in ("proc", "sys", "dev", "run")]
    assert [list(point.iterdir()) for point in points] == [[], [], [], []]
    assert [point.stat().st_mode & 0o7777 for point in points] == [0o555, 0o555, 0o755, 0o755]


def test_site_repositories(rocky: Installation) -> None:
    pkglist(rocky, "bash", "site-repos")
    rocky.site_file("files/yum.repos.d/site.repo", "[site]\nname=site\nbaseurl=http://example.org/\n")
    rocky.site_file("files/yum.repos.d/README", "not a repository\n")
    create(rocky)
    directory = rocky.tree() / "rootimg/etc/yum.repos.d"
    assert [path.name for path in directory.iterdir()] == ["site.repo"]
    assert (directory / "site.repo").read_text().startswith("[site]")

    rocky.site_file("images/example.prod/recipe.conf", "[setup_yum_repos]\nkeep = yes\n")
    create(rocky)
    assert sorted(path.name for path in directory.iterdir()) == ["site.repo", "vendor.repo"]


def test_vendor_repositories_stay_without_site_files(rocky: Installation) -> None:
    pkglist(rocky, "bash", "site-repos")
    create(rocky)
    assert [path.name for path in (rocky.tree() / "rootimg/etc/yum.repos.d").iterdir()] == ["vendor.repo"]


def test_procedure_adds_and_removes_packages(rocky: Installation) -> None:
    text = '"""Change packages"""\n\n\ndef run(ctx):\n    ctx.install_packages("needs-nothing")\n    ctx.remove_packages("vim-minimal")\n'
    rocky.site_file("procedures/el9/packages.py", text)
    rocky.recipe("prepare_image_directory", "generate_image", "packages")
    stdout, _ = create(rocky)
    assert names(rocky) == {"filesystem", "setup", "bash", "kernel-core", "needs-nothing"}
    assert row(stdout, "packages")[2] == "0"
    before = rocky.youngest()
    assert "no new revision" in create(rocky)[0]
    assert rocky.youngest() == before


def test_machine_is_left_alone(rocky: Installation) -> None:
    """Layers over the machine's own directories catch every write of the run."""
    tops = [top for top in ("/etc", "/var", "/root", "/usr") if Path(top).is_dir()]
    for private in (rocky.top, Path(os.environ.get("TMPDIR", "/tmp"))):
        tops = [top for top in tops if not f"{private}/".startswith(f"{top}/")]
    script = """
set -e
mount -t tmpfs none "$LAYERS"
for top in $TOPS; do
    mkdir -p "$LAYERS/upper$top" "$LAYERS/work$top"
    mount -t overlay -o "lowerdir=$top,upperdir=$LAYERS/upper$top,workdir=$LAYERS/work$top" none "$top"
done
touch /etc/avs-control
"$@"
cd "$LAYERS/upper"
find . -mindepth 2 ! -type d >"$FOUND"
"""
    layers, found = rocky.top / "tmp/layers", rocky.top / "tmp/found"
    layers.mkdir()
    variables = [f"TOPS={' '.join(tops)}", f"LAYERS={layers}", f"FOUND={found}", "PYTHONDONTWRITEBYTECODE=1"]
    prefix = ["unshare", "--mount", "env", *variables, "sh", "-c", script, "sh"]
    assert tops
    rocky.run("create", PROFILE, "-f", prefix=prefix)
    assert found.read_text() == "./etc/avs-control\n"
    assert (rocky.served() / "kernel").exists()


def test_other_release_of_the_family(rocky: Installation, repository: Path) -> None:
    """The osvers is written in many ways; what it is built by follows from it."""
    for osvers in ("rhels9.4.0", "centos-stream9", "fedora40"):
        rocky.define("other", osvers, pkgdir=str(repository), pkglist=str(rocky.top / "rocky.pkglist"))
        rocky.run("create", "other", "-o", osvers)
        assert (rocky.tree("other", osvers) / "kernel").exists(), osvers


def test_no_generator_for_an_old_release(rocky: Installation, repository: Path) -> None:
    rocky.define("old", "centos4.9", pkgdir=str(repository), pkglist=str(rocky.top / "rocky.pkglist"))
    result = rocky.run("create", "old", code=1)
    assert "centos4.9" in result.error
    assert "--from" in result.error


def test_osvers_that_the_site_names(rocky: Installation, repository: Path) -> None:
    rocky.define("own", "mylinux9.1", pkgdir=str(repository), pkglist=str(rocky.top / "rocky.pkglist"))
    assert "[osvers] of avs.conf" in rocky.run("create", "own", code=1).error
    rocky.configure("osvers", **{"mylinux*": "el"})
    rocky.site_file("recipes/el9.conf", "[recipe]\nsteps = prepare_image_directory, generate_image\n")
    rocky.run("create", "own")
    assert (rocky.tree("own", "mylinux9.1") / "kernel").exists()


def test_without_documentation_and_with_one_language(rocky: Installation, documented: Path) -> None:
    pkglist(rocky, "bash", "documented")
    rocky.define(PROFILE, otherpkgdir=str(documented))
    create(rocky)
    files = ("share/doc/documented/README", "share/locale/de/x.mo", "share/locale/fr/x.mo", "share/documented")
    there = [name for name in files if (rocky.tree() / "rootimg/usr" / name).exists()]
    assert there == list(files)
    rocky.configure("image", install_docs="no", install_locales="de", package_manager_args="--setopt=retries=1")
    create(rocky)
    there = [name for name in files if (rocky.tree() / "rootimg/usr" / name).exists()]
    assert there == ["share/locale/de/x.mo", "share/documented"]
    log = (rocky.logs / osimage_name(PROFILE) / "generate_image.log").read_text()
    assert re.search(r"^\+ dnf .* --setopt=retries=1 install ", log, re.MULTILINE)


def test_kernel_that_is_wanted(rocky: Installation) -> None:
    rocky.configure("image", kernel="5.14.0-1", kernel_suffix=".el9.x86_64")
    create(rocky)
    rocky.configure("image", kernel="6.0")
    assert f"there is {rpmrepo.KVER}" in create(rocky, code=1)[1]


def test_report_as_json(rocky: Installation) -> None:
    document = rocky.run("create", PROFILE, "--json").document
    assert document["osimage"] == osimage_name(PROFILE)
    step = next(item for item in document["steps"] if item["name"] == "generate_image")
    assert (step["packages_before"], step["packages_after"]) == (0, 5)
    root = rocky.tree() / "rootimg"
    size = 0
    seen = set()
    for directory, _, files in os.walk(root):
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += status.st_size
    links = [os.lstat(path).st_size for path in root.iterdir() if path.is_symlink() and path.is_dir()]
    assert document["steps"][-1]["bytes_after"] == size + sum(links)
    assert document["generator"] == "dnf"
    assert OSVERS in document["osimage"]

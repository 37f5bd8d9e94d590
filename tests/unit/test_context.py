"""What a procedure is given: paths that stay in the image, files, services, its own log."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.build.context import BuildContext, perform
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import Job
from xcat_avs.generate.genimage import Genimage
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.recipes.procedure import Layer, Procedure, load
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings
from xcat_avs.system import mounts
from xcat_avs.system.progress import Progress

from .conftest import untouched


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        ({}, "/etc/hosts", "etc/hosts"),
        ({}, "etc/hosts", "etc/hosts"),
        ({}, "//etc/./hosts", "etc/hosts"),
        ({}, "/", ""),
        ({}, "", ""),
        ({}, "/..", ""),
        ({}, "/../../etc", "etc"),
        ({}, "/etc/../../../../etc/x", "etc/x"),
        ({"lib": "usr/lib"}, "/lib/x", "usr/lib/x"),
        ({"lib": "/usr/lib"}, "/lib/x", "usr/lib/x"),
        ({"lib": "//usr//lib/"}, "/lib/x", "usr/lib/x"),
        ({"lib": "../../../../usr/lib"}, "/lib/x", "usr/lib/x"),
        ({"lib": "/../../usr/lib"}, "/lib/x", "usr/lib/x"),
        ({"usr/a": "../b", "b": "/c"}, "/usr/a/x", "c/x"),
        ({"usr/a": ".."}, "/usr/a/x", "x"),
        ({"a": "."}, "/a/a/a/x", "x"),
        ({"a": "b", "b": "c"}, "/a/../x", "x"),
        ({"a": "usr/deep"}, "/a/../x", "usr/x"),
        ({"etc/localtime": "/usr/share/zoneinfo/UTC"}, "/etc/localtime", "etc/localtime"),
        ({"a": "HOST"}, "/a/precious", "HOST/precious"),
    ],
)
def test_inside(ctx: BuildContext, host: Path, links: dict[str, str], path: str, expected: str) -> None:
    for name, target in links.items():
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).symlink_to(target.replace("HOST", str(host)))
    found = ctx.inside(path)
    # A link to a path of the host means that path below the root.
    assert found == Path(f"{ctx.root}/{expected.replace('HOST', str(host).lstrip('/'))}".rstrip("/"))
    assert found.is_relative_to(ctx.root)


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "a/a"}, {"a": "/a/"}])
def test_inside_does_not_go_round_for_ever(ctx: BuildContext, links: dict[str, str]) -> None:
    for name, target in links.items():
        (ctx.root / name).symlink_to(target)
    with pytest.raises(AvsError, match="too many symbolic links"):
        ctx.inside("/a/x")


def test_install_file(ctx: BuildContext, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"\xff\0")
    ctx.install_file(tmp_path / "source", "/etc/a/b", mode=0o4750, uid=12, gid=34)
    status = (ctx.root / "etc/a/b").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4750, 12, 34)
    assert (ctx.root / "etc/a/b").read_bytes() == b"\xff\0"
    ctx.install_file("text ü", "etc/text")
    ctx.install_file(b"bytes", "/etc/text2", mode=0o600)
    assert (ctx.root / "etc/text").read_text(encoding="utf-8") == "text ü"
    assert stat.S_IMODE((ctx.root / "etc/text2").stat().st_mode) == 0o600
    assert sorted(os.listdir(ctx.root / "etc")) == ["a", "text", "text2"]
    assert ctx.log.read_text().split("\n")[0] == "installed /etc/a/b"


def test_install_file_takes_the_place_of_a_link(ctx: BuildContext, host: Path) -> None:
    (ctx.root / "etc/resolv.conf").symlink_to(host / "precious")
    ctx.install_file("mine", "/etc/resolv.conf")
    assert not (ctx.root / "etc/resolv.conf").is_symlink()
    assert (ctx.root / "etc/resolv.conf").read_text() == "mine"
    assert untouched(host)


@pytest.mark.parametrize("name", ["sub/new", "precious"])
def test_install_file_stays_in_the_image(ctx: BuildContext, host: Path, name: str) -> None:
    (ctx.root / "data").symlink_to(host)
    ctx.install_file("mine", f"/data/{name}")
    assert untouched(host)
    assert (ctx.root / str(host).lstrip("/") / name).read_text() == "mine"
    (ctx.root / "up").symlink_to("../../../host")
    ctx.install_file("mine", f"/up/{name}")
    assert untouched(host)
    assert (ctx.root / "host" / name).read_text() == "mine"


@pytest.mark.parametrize("name", [".hosts.avs", ".hosts.new", "hosts.avs", ".avs.hosts"])
def test_install_file_does_not_write_through_a_link_that_waits_for_it(ctx: BuildContext, host: Path, name: str) -> None:
    (ctx.root / "etc" / name).symlink_to(host / "precious")
    ctx.install_file("mine", "/etc/hosts")
    assert untouched(host)
    assert (ctx.root / "etc/hosts").read_text() == "mine"


def test_a_failed_install_file_leaves_nothing(ctx: BuildContext, tmp_path: Path) -> None:
    (ctx.root / "etc/hosts").mkdir()
    with pytest.raises(OSError, match="hosts"):
        ctx.install_file("mine", "/etc/hosts")
    assert os.listdir(ctx.root / "etc") == ["hosts"]


def test_site_files(ctx: BuildContext) -> None:
    assert ctx.site_file("hosts") is None
    common = ctx.installdir / "custom/avs/files/hosts"
    special = ctx.installdir / "custom/avs/images/example.prod/files/hosts"
    for path in (common, special):
        path.parent.mkdir(parents=True)
        path.touch()
        assert ctx.site_file("hosts") == path


def test_run_goes_to_the_log(ctx: BuildContext) -> None:
    assert ctx.run(["echo", "hello"]) == 0
    assert ctx.log.read_text() == "+ echo hello\nhello\n"
    assert ctx.run(["sh", "-c", "exit 3"], check=False) == 3
    with pytest.raises(CommandError, match="exit code 3"):
        ctx.run(["sh", "-c", "exit 3"])
    timed = replace(ctx, recipe=Recipe((), Settings(timeout=1)))
    assert timed.settings.timeout == 1


def test_empty(ctx: BuildContext) -> None:
    (ctx.root / "etc/old").touch()
    (ctx.paths.tree / "kernel").touch()
    os.umask(0o022)
    ctx.empty()
    assert os.listdir(ctx.paths.tree) == ["rootimg"]
    assert os.listdir(ctx.root) == []
    assert stat.S_IMODE(ctx.root.stat().st_mode) == 0o755


def procedure(tmp_path: Path, layer: str, name: str, text: str, overridden: Any = None) -> Procedure:
    path = tmp_path / layer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return load(path, Layer(layer, path.parent), overridden)


def test_a_python_procedure_is_run_as_it_was_read(ctx: BuildContext, tmp_path: Path) -> None:
    found = procedure(
        tmp_path, "common", "mine.py", "def run(ctx):\n    ctx.install_file(__file__ + ctx.options['x'], '/etc/x')\n"
    )
    found.path.write_text("raise RuntimeError('edited since')\n")
    perform(replace(ctx, procedure=found, options={"x": "!"}))
    assert (ctx.root / "etc/x").read_text() == f"{found.path}!"
    assert not (tmp_path / "common/__pycache__").exists()


def test_overridden_runs_the_layer_below_with_the_same_options(ctx: BuildContext, tmp_path: Path) -> None:
    text = "def run(ctx):\n    ctx.say(LAYER + ctx.options['x'])\n    if LAYER != 'one': ctx.overridden()\n"
    one = procedure(tmp_path, "one", "mine.py", "LAYER = 'one'\n" + text)
    two = procedure(tmp_path, "two", "mine.py", "LAYER = 'two'\n" + text, one)
    three = procedure(tmp_path, "three", "mine.py", "LAYER = 'three'\n" + text, two)
    perform(replace(ctx, procedure=three, options={"x": "!"}))
    assert ctx.log.read_text() == "three!\ntwo!\none!\n"
    with pytest.raises(AvsError, match="overrides none"):
        replace(ctx, procedure=one).overridden()


def test_an_executable_gets_variables_and_the_root_as_its_directory(ctx: BuildContext, tmp_path: Path) -> None:
    found = procedure(
        tmp_path, "common", "mine.sh", "#!/bin/sh\npwd; env -0 | tr '\\0\\n' '\\n ' | grep ^AVS_ | sort\n"
    )
    options = {"names": ("a", "b c"), "force": True, "quiet": False, "count": 7, "text": "two words"}
    perform(replace(ctx, procedure=found, options=options))
    lines = ctx.log.read_text().split("\n")[1:-1]
    assert lines == [
        str(ctx.root), "AVS_ARCH=x86_64", "AVS_FAMILY=debian", f"AVS_INSTALLDIR={ctx.installdir}", "AVS_OPT_COUNT=7",
        "AVS_OPT_FORCE=yes", "AVS_OPT_NAMES=a b c", "AVS_OPT_QUIET=no", "AVS_OPT_TEXT=two words",
        "AVS_OSIMAGE=debian12-x86_64-netboot-example.prod", "AVS_OSVERS=debian12", f"AVS_PROCEDURE={found.path}",
        "AVS_PROFILE=example.prod", f"AVS_ROOT={ctx.root}",
    ]  # fmt: skip


def test_the_exit_code_of_an_executable_counts(ctx: BuildContext, tmp_path: Path) -> None:
    found = procedure(tmp_path, "common", "mine.sh", "#!/bin/sh\necho the reason\nexit 3\n")
    with pytest.raises(CommandError, match="exit code 3") as caught:
        perform(replace(ctx, procedure=found))
    assert caught.value.tail[-1] == "the reason"


@pytest.mark.parametrize("statement", ["sys.exit('the reason')", "sys.exit(0)", "raise SystemExit(3)", "exit()"])
def test_a_procedure_that_exits_has_failed(ctx: BuildContext, tmp_path: Path, statement: str) -> None:
    """Or avsimage itself would end there: without an error, with whatever exit code the procedure says."""
    found = procedure(tmp_path, "common", "mine.py", f"import sys\ndef run(ctx):\n    {statement}\n")
    with pytest.raises(Exception, match=r"mine|reason|exit"):
        perform(replace(ctx, procedure=found))


def test_fail_is_an_error_without_a_traceback(ctx: BuildContext) -> None:
    with pytest.raises(AvsError, match="what is wrong"):
        ctx.fail("what is wrong")


# -- reading and editing


@pytest.mark.parametrize("target", ["HOST/precious", "../../../host/precious"])
def test_read_and_exists_follow_links_within_the_image(ctx: BuildContext, host: Path, target: str) -> None:
    (ctx.root / "etc/link").symlink_to(target.replace("HOST", str(host)))
    assert ctx.read("/etc/link") == ""
    assert not ctx.exists("/etc/link")
    ctx.install_file("the image's", f"{host}/precious" if target.startswith("HOST") else "/host/precious")
    assert ctx.read("/etc/link") == "the image's"
    assert ctx.exists("/etc/link")


def test_read_does_not_wait_for_what_is_no_file(ctx: BuildContext) -> None:
    os.mkfifo(ctx.root / "etc/fifo")
    os.mknod(ctx.root / "etc/zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    for name in ("fifo", "zero", ""):
        with pytest.raises(AvsError, match=rf"^/etc/{name} of the image cannot be read: not a regular file"):
            ctx.read(f"/etc/{name}")
        with pytest.raises(AvsError, match="not a regular file"):
            ctx.set_values(f"/etc/{name}", {"a": "b"})


def test_read_keeps_every_byte(ctx: BuildContext) -> None:
    (ctx.root / "etc/latin").write_bytes(b"caf\xe9\r\n")
    ctx.edit("/etc/latin", lambda text: text + "more\n")
    assert (ctx.root / "etc/latin").read_bytes() == b"caf\xe9\r\nmore\n"


def test_edit_keeps_owner_and_mode(ctx: BuildContext) -> None:
    path = ctx.root / "etc/secret"
    path.write_text("old\n")
    os.chown(path, 12, 34)
    path.chmod(0o640)
    ctx.edit("/etc/secret", lambda text: text.replace("old", "new"))
    status = path.stat()
    assert path.read_text() == "new\n"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 12, 34)
    before = path.stat()
    ctx.edit("/etc/secret", lambda text: text)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "written for nothing"


def test_edit_makes_a_file_where_there_is_something_to_write(ctx: BuildContext) -> None:
    ctx.edit("/etc/new/file", lambda text: text)
    assert not (ctx.root / "etc/new").exists()
    ctx.edit("/etc/new/file", lambda text: f"<{text}>")
    assert (ctx.root / "etc/new/file").read_text() == "<>"
    assert stat.S_IMODE((ctx.root / "etc/new/file").stat().st_mode) == 0o644


def test_edit_leaves_a_link_and_changes_what_it_leads_to_in_the_image(ctx: BuildContext, host: Path) -> None:
    """As /etc/sysconfig/selinux is one to ../selinux/config."""
    (ctx.root / "etc/link").symlink_to(host / "precious")
    ctx.edit("/etc/link", lambda text: text + "mine")
    assert untouched(host)
    assert (ctx.root / "etc/link").is_symlink()
    assert (ctx.root / str(host).lstrip("/") / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "values", "separator", "new"),
    [
        ("", {"A": "1"}, "=", "A=1\n"),
        ("A=0\nB=2\n", {"A": "1"}, "=", "A=1\nB=2\n"),
        ("B=2\n  A = 0\nA=00\nC=3", {"A": "1"}, "=", "B=2\nA=1\nC=3\n"),
        ("#A=0\nAA=0\n", {"A": "1", "B": "2"}, "=", "#A=0\nAA=0\nA=1\nB=2\n"),
        ("net.a.b = 0\nnetxaxb = 5\n", {"net.a.b": "1"}, " = ", "net.a.b = 1\nnetxaxb = 5\n"),
        ("Key old\nKeyOther x\n", {"Key": "new"}, " ", "Key new\nKeyOther x\n"),
        ("A=1\n\n", {"A": "1"}, "=", "A=1\n\n"),
        ("A=a\n", {"A": r"\1 \g<0>"}, "=", "A=\\1 \\g<0>\n"),
    ],
)
def test_set_values(ctx: BuildContext, old: str, values: dict[str, str], separator: str, new: str) -> None:
    (ctx.root / "etc/conf").write_text(old)
    for _ in range(2):
        ctx.set_values("/etc/conf", values, separator)
        assert (ctx.root / "etc/conf").read_text() == new


def test_remove(ctx: BuildContext, host: Path) -> None:
    (ctx.root / "etc/dir/sub").mkdir(parents=True)
    (ctx.root / "etc/dir/link").symlink_to(host)
    (ctx.root / "etc/data").symlink_to(host)
    for path in ("/etc/dir", "/etc/data/precious", "/etc/data", "/etc/not/there"):
        ctx.remove(path)
    assert os.listdir(ctx.root / "etc") == []
    assert untouched(host)
    for path in ("/", "", "/etc/.."):
        with pytest.raises(AvsError, match="root of the image"):
            ctx.remove(path)
    assert (ctx.root / "etc").is_dir()


def test_inside_follows_the_last_part_where_asked(ctx: BuildContext, host: Path) -> None:
    (ctx.root / "etc/link").symlink_to(host)
    assert ctx.inside("/etc/link") == ctx.root / "etc/link"
    assert ctx.inside("/etc/link", follow=True) == ctx.root / str(host).lstrip("/")


def test_site_files_of_a_pattern(ctx: BuildContext) -> None:
    common = ctx.installdir / "custom/avs/files"
    special = ctx.installdir / "custom/avs/images/example.prod/files"
    for path in (
        common / "auto.home",
        common / "auto.data",
        special / "auto.data",
        special / "auto.d/x",
        common / "other",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert ctx.site_files("auto.*") == [special / "auto.data", common / "auto.home"]
    assert ctx.site_files("auto.d/*") == [special / "auto.d/x"]
    assert ctx.site_files("none*") == []


# -- packages


class Recorder(Mmdebstrap):
    """Says what it was asked, and adds to the image what an upgrade would."""

    def __init__(self, root: Path, new_kernel: str = "") -> None:
        self.root, self.new_kernel, self.asked = root, new_kernel, list[tuple[str, ...]]()

    def install(self, job: Job, names: Any) -> None:
        self.asked.append(("install", *names))

    def upgrade(self, job: Job) -> None:
        self.asked.append(("upgrade",))
        if self.new_kernel:
            add_kernel(self.root, self.new_kernel)


STATUS = """Package: bash
Essential: yes
Status: install ok installed

Package: gone
Status: deinstall ok config-files
Description: x
 Status: install ok installed

Package: apt
Status: hold ok installed
"""


def test_packages_that_are_there_are_not_installed_again(ctx: BuildContext) -> None:
    status = ctx.root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(STATUS)
    generator = Recorder(ctx.root)
    ctx = replace(ctx, generator=generator)
    assert ctx.packages() == ["apt", "bash"]
    ctx.install_packages("bash", "apt")
    assert generator.asked == []
    ctx.install_packages("gone", "bash", "new")
    assert generator.asked == [("install", "gone", "new")]


def test_read_pkglist(ctx: BuildContext, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# why\none two # and why\n-three\n")
    found = ctx.read_pkglist(tmp_path / "list")
    assert (found.include, found.exclude) == (("one", "two"), ("three",))
    assert ctx.read_pkglist().include == ()


# -- kernels


def add_kernel(root: Path, release: str, initrd: bool = True, modules: bool = True) -> None:
    (root / "boot").mkdir(exist_ok=True)
    (root / f"boot/vmlinuz-{release}").write_text(f"kernel {release}")
    if initrd:
        (root / f"boot/initrd.img-{release}").write_text(f"initrd {release}")
    if modules:
        (root / f"lib/modules/{release}").mkdir(parents=True)


def taken(ctx: BuildContext) -> list[str]:
    return [(ctx.paths.tree / name).read_text() for name in ("kernel", "initrd-stateless.gz")]


def test_take_kernel(ctx: BuildContext) -> None:
    for release in ("6.1.0-9", "6.1.0-21", "6.1.0-10"):
        add_kernel(ctx.root, release)
    assert ctx.kernels() == ["6.1.0-9", "6.1.0-10", "6.1.0-21"]
    ctx.take_kernel()
    assert taken(ctx) == ["kernel 6.1.0-21", "initrd 6.1.0-21"]
    ctx.take_kernel("6.1.0-9")
    assert taken(ctx) == ["kernel 6.1.0-9", "initrd 6.1.0-9"]


def test_take_kernel_that_is_not_whole_changes_nothing(ctx: BuildContext) -> None:
    with pytest.raises(AvsError, match="no kernel at all"):
        ctx.take_kernel()
    add_kernel(ctx.root, "6.1.0-9")
    ctx.take_kernel()
    add_kernel(ctx.root, "6.1.0-10", initrd=False)
    add_kernel(ctx.root, "6.1.0-11", modules=False)
    for release, words in {
        "7.0": r"no kernel 7\.0 in boot or lib/modules; there is 6\.1\.0-9, 6\.1\.0-10, 6\.1\.0-11",
        "6.1.0-10": r"no initrd of kernel 6\.1\.0-10",
        "6.1.0-11": r"no modules of kernel 6\.1\.0-11 in lib/modules; there are those of 6\.1\.0-9, 6\.1\.0-10",
    }.items():
        with pytest.raises(AvsError, match=words):
            ctx.take_kernel(release)
        assert taken(ctx) == ["kernel 6.1.0-9", "initrd 6.1.0-9"]


def test_kernel_that_genimage_made_bootable_stays(ctx: BuildContext, tmp_path: Path) -> None:
    """Its initrd knows how to fetch a root; that of the image's package does not."""
    ctx = replace(ctx, generator=Genimage(tmp_path, tmp_path))
    for release in ("6.1.0-9", "6.1.0-10"):
        add_kernel(ctx.root, release)
    (ctx.paths.tree / "kernel").write_text("kernel 6.1.0-9")
    (ctx.paths.tree / "initrd-stateless.gz").write_text("of genimage")
    ctx.take_kernel("6.1.0-9")
    assert taken(ctx) == ["kernel 6.1.0-9", "of genimage"]
    with pytest.raises(AvsError, match=f"`chdef -t osimage {ctx.image.name} kernelver=6.1.0-10`"):
        ctx.take_kernel("6.1.0-10")
    assert taken(ctx) == ["kernel 6.1.0-9", "of genimage"]


class OldKernel(Genimage):
    """Makes the older of two kernels bootable, as genimage does, which goes by their names."""

    def generate(self, job: Job) -> None:
        for release in ("4.18.0-348.el8.x86_64", "4.18.0-348.20.1.el8_5.x86_64"):
            add_kernel(job.root, release)
        (job.root.parent / "kernel").write_text("kernel 4.18.0-348.el8.x86_64")


def test_genimage_that_took_an_old_kernel(ctx: BuildContext, tmp_path: Path) -> None:
    said = io.StringIO()
    ctx = replace(ctx, generator=OldKernel(tmp_path, tmp_path), progress=Progress(said))
    image = replace(ctx.image, attributes={"kernelver": "4.18.0-348.el8.x86_64"})
    replace(ctx, image=image).generate()
    assert said.getvalue() == "", "that is the one which was named"
    ctx.generate()
    assert "kernelver=4.18.0-348.20.1.el8_5.x86_64`" in said.getvalue()


def test_kernel_and_initrd_that_a_directory_brought(ctx: BuildContext, tmp_path: Path) -> None:
    ctx = replace(ctx, source=tmp_path)
    for release in ("6.1.0-9", "6.1.0-10"):
        add_kernel(ctx.root, release)
    (ctx.paths.tree / "kernel").write_text("kernel 6.1.0-9")
    (ctx.paths.tree / "initrd-stateless.gz").write_text("of the directory")
    ctx.take_kernel("6.1.0-9")
    assert taken(ctx) == ["kernel 6.1.0-9", "of the directory"]
    ctx.take_kernel("6.1.0-10")
    assert taken(ctx) == ["kernel 6.1.0-10", "initrd 6.1.0-10"]


def test_upgrade_takes_a_new_kernel_along(ctx: BuildContext) -> None:
    for release in ("6.1.0-9", "6.1.0-10"):
        add_kernel(ctx.root, release)
    ctx.take_kernel("6.1.0-9")
    replace(ctx, generator=Recorder(ctx.root)).upgrade_packages()
    assert taken(ctx)[0] == "kernel 6.1.0-9", "no other kernel came, and this one was chosen"
    replace(ctx, generator=Recorder(ctx.root, "6.1.0-11")).upgrade_packages()
    assert taken(ctx) == ["kernel 6.1.0-11", "initrd 6.1.0-11"]
    replace(ctx, generator=Recorder(ctx.root, "6.1.0-12-rt")).upgrade_packages()
    assert taken(ctx)[0] == "kernel 6.1.0-11", "the plain one"


# -- services


UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"


def add_unit(root: Path, name: str, directory: str = "usr/lib/systemd/system") -> None:
    (root / directory).mkdir(parents=True, exist_ok=True)
    (root / directory / name).write_text(UNIT)


def test_a_service(ctx: BuildContext) -> None:
    """systemctl works on a directory, without a running systemd."""
    add_unit(ctx.root, "mine.service")
    ctx.service("mine")
    assert (ctx.root / "etc/systemd/system/multi-user.target.wants/mine.service").is_symlink()
    ctx.service("mine", enable=False)
    assert not (ctx.root / "etc/systemd/system/multi-user.target.wants/mine.service").is_symlink()


def test_units_of_other_kinds(ctx: BuildContext) -> None:
    for name in ("my.own.service", "tick.timer", "getty@.service"):
        add_unit(ctx.root, name)
    for name in ("my.own", "tick.timer", "getty@tty1.service", "getty@tty1"):
        assert ctx.has_service(name), name
        ctx.service(name)
    assert sorted(os.listdir(ctx.root / "etc/systemd/system/multi-user.target.wants")) == [
        "getty@tty1.service", "my.own.service", "tick.timer",
    ]  # fmt: skip
    assert not ctx.has_service("tick")


@pytest.mark.parametrize("enable", [True, False])
def test_a_service_that_is_not_there(ctx: BuildContext, enable: bool) -> None:
    assert not ctx.has_service("mine")
    with pytest.raises(AvsError, match="the image has no service mine; is its package installed"):
        ctx.service("mine", enable)


@pytest.mark.parametrize("link", ["etc/systemd", "etc/systemd/system", "etc/systemd/system/multi-user.target.wants"])
def test_a_service_where_a_link_leads_to_the_host(
    ctx: BuildContext, host: Path, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's systemctl would follow it, so the image's own is run in the image."""
    add_unit(ctx.root, "mine.service")
    path = ctx.root / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(host)
    asked: list[Any] = []
    monkeypatch.setattr(BuildContext, "chroot", lambda self, argv, env=None: asked.append(argv))
    ctx.service("mine")
    assert asked == [["systemctl", "enable", "mine"]]
    assert untouched(host)
    assert sorted(os.listdir(host)) == ["precious", "sub"]


@pytest.mark.parametrize(
    ("program", "asked"),
    [
        ("sbin/chkconfig", {True: [["chkconfig", "old", "on"]], False: [["chkconfig", "old", "off"]]}),
        (
            "usr/sbin/update-rc.d",
            {
                True: [["update-rc.d", "old", "defaults"], ["update-rc.d", "old", "enable"]],
                False: [["update-rc.d", "old", "defaults"], ["update-rc.d", "old", "disable"]],
            },
        ),
    ],
)
def test_an_init_script(
    ctx: BuildContext, program: str, asked: dict[bool, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EL has /etc/init.d as a link."""
    for name in ("etc/rc.d/init.d/old", program):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).touch()
    (ctx.root / "etc/init.d").symlink_to("rc.d/init.d")
    add_unit(ctx.root, "both.service")
    (ctx.root / "etc/init.d/both").touch()
    found: list[Any] = []
    monkeypatch.setattr(BuildContext, "chroot", lambda self, argv, **_: found.append(argv))
    for enable in (True, False):
        found.clear()
        ctx.service("old", enable)
        assert found == asked[enable]
    found.clear()
    ctx.service("both")
    assert found == [], "systemd does not start what has a unit by its script"
    assert mounts.mounts_below(ctx.root) == []


@pytest.mark.usefixtures("deep_is_removed")
def test_directories_deeper_than_python_goes(ctx: BuildContext) -> None:
    """And than a path may be long: matched, emptied, removed, and a path in them is one of the image."""
    descriptor = os.open(ctx.root, os.O_RDONLY)
    for name in ["top", *["d"] * 1500, *["e" * 200] * 10]:
        os.mkdir(name, dir_fd=descriptor)
        following = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    path = "/".join(["top", *["d"] * 1500])
    assert ctx.inside(f"/{path}/x") == ctx.root / path / "x"
    (found,) = ctx.glob("top/**/file")
    assert len(str(found)) > 4096
    assert ctx.empty_directories(["top"]) == 1
    assert os.listdir(ctx.root / "top") == []
    ctx.remove("top")
    assert not ctx.exists("top")

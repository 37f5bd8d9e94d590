"""What a procedure is given: paths that stay in the image, files, services, its own log."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.config import Settings
from xcat_avs.context import BuildContext, perform
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.procedure import Layer, Procedure, load
from xcat_avs.recipe import Recipe

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


def test_a_service(ctx: BuildContext) -> None:
    """systemctl works on a directory, without a running systemd."""
    units = ctx.root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "mine.service").write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    ctx.service("mine")
    assert (ctx.root / "etc/systemd/system/multi-user.target.wants/mine.service").is_symlink()
    ctx.service("mine", enable=False)
    assert not (ctx.root / "etc/systemd/system/multi-user.target.wants/mine.service").is_symlink()

"""Procedures on real trees: layers, options, executables, and what each shipped one does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from integration.conftest import GID, UID
from integration.harness import (
    ARCH,
    OSVERS,
    PROFILE,
    Installation,
    difference,
    look,
    osimage_name,
    output,
    served_set,
)

pytestmark = pytest.mark.slow

FIRST = ("prepare_image_directory", "generate_image")


def write(path: Path, text: str | bytes = "x\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def log(installation: Installation, step: str) -> str:
    return (installation.logs / osimage_name(PROFILE) / f"{step}.log").read_text()


# -- layers


def test_site_overrides_a_shipped_procedure_and_calls_it(installation: Installation, source: Path) -> None:
    text = """\"\"\"Clean up as the site does\"\"\"

OPTIONS = {"caches": (("var/cache/*",), "patterns"), "temporary": (("tmp",), "directories"), "logs": (False, ""), "identity": (False, "")}


def run(ctx):
    ctx.say("before")
    ctx.overridden()
    ctx.install_file("after\\n", "/etc/after", mode=0o600)
"""
    installation.site_file("procedures/el/cleanup.py", text)
    write(source / "rootimg/tmp/left")
    write(source / "rootimg/var/tmp/kept")
    write(source / "rootimg/var/log/messages", "kept\n")
    installation.create(source)
    root = installation.tree() / "rootimg"
    assert (root / "etc/after").read_text() == "after\n"
    assert (root / "etc/after").stat().st_mode & 0o7777 == 0o600
    assert list((root / "tmp").iterdir()) == []
    assert (root / "var/tmp/kept").exists(), "the one below was not given the options of the one above"
    assert (root / "var/log/messages").read_text() == "kept\n"
    stored = installation.tree() / "build_info/inputs/procedures"
    assert sorted(str(path.relative_to(stored)) for path in stored.rglob("cleanup.py")) == [
        "shipped.common/cleanup.py",
        "site.el/cleanup.py",
    ]
    steps = {step["name"]: step for step in installation.run("steps", PROFILE, "--json").document["steps"]}
    assert steps["cleanup"]["layer"] == "site el"
    assert steps["cleanup"]["overrides"].endswith("common/cleanup.py")


def test_the_most_special_layer_wins(installation: Installation, source: Path) -> None:
    layers = ["procedures/common", "procedures/el", "procedures/el9", f"procedures/{OSVERS}", f"images/{PROFILE}"]
    for number, layer in enumerate(layers):
        call = "ctx.overridden()" if number else "pass"
        body = f'"""Say {number}"""\n\n\ndef run(ctx):\n    {call}\n    ctx.say("layer {number}")\n'
        installation.site_file(f"{layer}/say.py", body)
    installation.site_file("procedures/el8/say.py", '"""Not for this one"""\n\n\ndef run(ctx):\n    raise ValueError\n')
    installation.recipe(*FIRST, "say")
    installation.create(source)
    assert log(installation, "say").split("\n")[:5] == [f"layer {number}" for number in range(5)]


def test_overridden_without_one_below(installation: Installation, source: Path) -> None:
    installation.site_file("procedures/el/mine.py", '"""Mine"""\n\n\ndef run(ctx):\n    ctx.overridden()\n')
    installation.recipe(*FIRST, "mine")
    error = installation.create(source, code=1).error
    assert "step mine failed" in error
    assert "overrides none" in error


def test_executable_over_python(installation: Installation, source: Path) -> None:
    installation.site_file(
        "procedures/el/cleanup.sh", '#!/bin/sh\n# Nothing to clean\ntouch "$AVS_ROOT/etc/mine"\n', 0o755
    )
    write(source / "rootimg/tmp/left")
    installation.create(source)
    assert (installation.tree() / "rootimg/tmp/left").exists()
    assert (installation.tree() / "rootimg/etc/mine").exists()


# -- executables


SHOW = """#!/bin/sh
# Show what is there
# OPTION colour=red   its colour
# OPTION words=   some words
env | sort
pwd
echo to stderr >&2
"""


def test_executable_gets_its_environment(installation: Installation, source: Path) -> None:
    path = installation.site_file("procedures/el9/show.sh", SHOW, 0o755)
    installation.recipe(*FIRST, "show", more="\n[show]\nwords = two words, and = more\n")
    installation.create(source)
    lines = log(installation, "show").splitlines()
    root = installation.tree() / "rootimg"
    for wanted in (
        f"AVS_ROOT={root}", f"AVS_OSVERS={OSVERS}", f"AVS_ARCH={ARCH}", f"AVS_PROFILE={PROFILE}", "AVS_FAMILY=el",
        f"AVS_OSIMAGE={osimage_name(PROFILE)}", f"AVS_INSTALLDIR={installation.installdir}", f"AVS_PROCEDURE={path}",
        "AVS_OPT_COLOUR=red", "AVS_OPT_WORDS=two words, and = more", "LC_ALL=C.UTF-8", "to stderr", str(root),
    ):  # fmt: skip
        assert wanted in lines, wanted
    assert not any(line.startswith(("AVS_CONF=", "PYTHON")) for line in lines), (
        "the environment is not built from nothing"
    )


def test_executable_in_any_language_without_suffix(installation: Installation, source: Path) -> None:
    installation.site_file("procedures/el/any", '#!/usr/bin/awk -f\nBEGIN { print "from awk" }\n', 0o755)
    installation.recipe(*FIRST, "any")
    installation.create(source)
    assert "from awk" in log(installation, "any")


@pytest.mark.parametrize(
    ("text", "mode", "word"),
    [
        ("echo no interpreter is named\n", 0o755, "mine"),
        ("#!/bin/sh\r\necho of another system\r\n", 0o755, "mine.sh"),
        ("#!/no/such/program\n", 0o755, "mine.sh"),
        ("#!/bin/sh\n", 0o644, "not executable"),
        ("", 0o755, "mine"),
    ],
    ids=["no interpreter", "carriage return", "missing interpreter", "not executable", "empty"],
)
def test_executable_that_cannot_be_run(
    installation: Installation, source: Path, text: str, mode: int, word: str
) -> None:
    path = installation.site_file("procedures/el/mine.sh", text, mode)
    installation.recipe(*FIRST, "mine")
    result = installation.create(source, code=None)
    if result.code == 0:
        return  # what a shell would run may be run
    assert result.code == 1
    assert word in result.error
    assert str(path) in result.error
    for noise in ("ForkException", "Traceback", "Original exception", "sh.py"):
        assert noise not in result.error


# -- Python


def python(installation: Installation, body: str) -> None:
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    installation.site_file("procedures/el/mine.py", f'"""Mine"""\n\nimport os, sys\n\n\ndef run(ctx):\n{lines}')
    installation.recipe(*FIRST, "mine")


@pytest.mark.parametrize("status", ["0", "3", "", "'in words'"])
def test_procedure_that_exits_fails_its_step(installation: Installation, source: Path, status: str) -> None:
    """sys.exit() in a procedure must not end the command, least of all with success."""
    python(installation, f"sys.exit({status})")
    result = installation.create(source, code=1)
    assert "step mine failed" in result.error
    assert installation.youngest() == 1


def test_what_a_procedure_prints_is_in_its_log_and_not_in_the_report(installation: Installation, source: Path) -> None:
    python(installation, 'print("printed")\nsys.stdout.flush()\nos.system("echo from a shell")')
    result = installation.run("create", PROFILE, "--from", str(source), "--json")
    assert result.document["osimage"] == osimage_name(PROFILE)
    assert "printed" in log(installation, "mine")


def test_procedure_does_not_change_those_after_it(installation: Installation, source: Path) -> None:
    python(installation, 'os.umask(0o077)\nos.chdir("/")\nos.environ["PATH"] = "/nowhere"')
    installation.site_file("procedures/el/next.sh", '#!/bin/sh\ntouch "$AVS_ROOT/etc/next"\n', 0o755)
    installation.recipe(*FIRST, "mine", "next")
    installation.create(source)
    assert (installation.tree() / "rootimg/etc/next").stat().st_mode & 0o7777 == 0o644


def test_procedure_that_raises_its_own_kind(installation: Installation, source: Path) -> None:
    python(installation, "{}['key that is not there']")
    error = installation.create(source, code=1).error
    assert "step mine failed" in error
    assert "KeyError" in error
    assert "mine.py" in error or "mine.py" in log(installation, "mine"), "neither file nor line of the mistake"


def test_what_ctx_offers(installation: Installation, source: Path, tmp_path: Path) -> None:
    write(tmp_path / "file", "from a file\n")
    (source / "rootimg/etc/outside").symlink_to("/srv/elsewhere")
    body = f"""from pathlib import Path
ctx.install_file("text\\n", "/etc/deep/er/text", mode=0o640, uid={UID}, gid={GID})
ctx.install_file(b"bytes", "etc/bytes")
ctx.install_file(Path({str(tmp_path / "file")!r}), "/etc/passwd")
ctx.install_file("inside", "/etc/outside/x")
ctx.install_file("over a link", "/etc/mtab")
assert ctx.run(["false"], check=False) == 1
ctx.run(["sh", "-c", "echo $MINE"], env={{"MINE": "my variable"}})
assert ctx.image.profile == {PROFILE!r}
assert ctx.root.name == "rootimg"
try:
    ctx.run(["false"])
except Exception as err:
    assert "false failed with exit code 1" in str(err)
else:
    raise AssertionError("not raised")
try:
    ctx.run(["no-such-program"])
except Exception as err:
    assert "no-such-program is not installed" in str(err)
"""
    python(installation, body)
    installation.create(source)
    etc = installation.tree() / "rootimg/etc"
    text = (etc / "deep/er/text").stat()
    assert (text.st_mode & 0o7777, text.st_uid, text.st_gid) == (0o640, UID, GID)
    assert (etc / "bytes").read_bytes() == b"bytes"
    assert (etc / "passwd").read_text() == "from a file\n"
    assert (etc.parent / "srv/elsewhere/x").read_text() == "inside"
    assert not Path("/srv/elsewhere").exists()
    assert (etc / "mtab").read_text() == "over a link"
    assert not (etc / "mtab").is_symlink()
    assert "my variable" in log(installation, "mine")


def add_programs(root: Path, *names: str) -> None:
    """Copy programs of this machine, and the libraries that they need, into an image."""
    for name in names:
        program = shutil.which(name)
        assert program
        libraries = [word for word in output(["ldd", program]).split() if word.startswith("/")]
        for path in [program, *libraries]:
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def test_programs_of_the_image_run_in_it(installation: Installation, source: Path) -> None:
    root = source / "rootimg"
    add_programs(root, "sh", "cat", "ls", "touch")
    (root / "run").rmdir()
    script = (
        "cat /proc/mounts; ls /dev; echo inside >/etc/inside; test -c /dev/null && echo x >/dev/null; touch /run/gone"
    )
    python(installation, f'ctx.chroot(["sh", "-ec", {script!r}])')
    before = look(root / "dev")
    installation.create(source)
    built = installation.tree() / "rootimg"
    assert (built / "etc/inside").read_text() == "inside\n"
    assert not (built / "run").exists()
    assert difference(before, look(built / "dev")) == {}
    said = log(installation, "mine")
    assert "proc /proc proc" in said
    assert "urandom" in said
    assert "sda" not in said, "the devices of the image or of the machine are in reach"


def test_daemon_started_in_the_image_is_ended(installation: Installation, source: Path) -> None:
    """A package's script starts what it installed; its mounts must come off all the same."""
    add_programs(source / "rootimg", "sh", "sleep", "setsid")
    python(installation, 'ctx.chroot(["sh", "-c", "setsid sleep 300 >/dev/null 2>&1 </dev/null & sleep 0.1"])')
    installation.create(source)
    installation.assert_clean()


def test_mount_left_by_a_procedure_fails_its_step(installation: Installation, source: Path) -> None:
    script = '#!/bin/sh\nmount -t tmpfs none "$AVS_ROOT/empty"\n'
    installation.site_file("procedures/el/mine.sh", script, 0o755)
    installation.recipe(*FIRST, "mine")
    error = installation.create(source, code=1).error
    assert "left mounts behind" in error
    assert "rootimg/empty" in error
    installation.assert_clean()
    installation.site_file("procedures/el/mine.sh", "#!/bin/sh\n", 0o755)
    installation.create(source, "-b")


# -- refused


@pytest.mark.parametrize("what", ["procedure", "directory", "recipe", "owner", "directory above"])
def test_file_that_others_may_write_is_refused(installation: Installation, source: Path, what: str) -> None:
    path = installation.site_file("procedures/el/mine.sh", "#!/bin/sh\n", 0o755)
    installation.recipe(*FIRST, "mine")
    recipe = installation.site / f"images/{PROFILE}/recipe.conf"
    guilty = {"procedure": path, "recipe": recipe, "directory": path.parent, "owner": path}.get(
        what, path.parent.parent
    )
    if what == "owner":
        os.chown(path, UID, 0)
    else:
        guilty.chmod(guilty.stat().st_mode | 0o020)
    for argv in (["create", PROFILE, "--from", str(source)], ["steps", PROFILE]):
        error = installation.run(*argv, code=1).error
        assert str(guilty) in error
        assert "root" in error
    assert not installation.tree().exists()
    if what == "owner":
        os.chown(path, 0, 0)
    else:
        guilty.chmod(0o755)
    installation.run("steps", PROFILE)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("\n[cleanup]\ncahces = x\n", ["recipe.conf", "cleanup", "'cahces'", "did you mean caches"]),
        ("\n[clenup]\ncaches = x\n", ["recipe.conf", "clenup", "did you mean cleanup"]),
        ("\n[cleanup]\nlogs = perhaps\n", ["recipe.conf", "[cleanup] logs", "'perhaps'", "yes or no"]),
        ("step = cleanup\n", ["recipe.conf", "'step'", "steps"]),
        ("\n[image]\ntimeuot = 3\n", ["recipe.conf", "'timeuot'", "did you mean timeout"]),
    ],
    ids=["option", "procedure", "value", "setting", "setting of avs.conf"],
)
def test_unknown_name_in_a_recipe_is_refused(
    installation: Installation, source: Path, more: str, words: list[str]
) -> None:
    installation.recipe(*FIRST, "cleanup", more=more)
    error = installation.create(source, code=1).error
    for word in words:
        assert word in error
    assert not installation.tree().exists()


def test_unknown_step_is_refused(installation: Installation, source: Path) -> None:
    installation.recipe(*FIRST, "claenup")
    error = installation.create(source, code=1).error
    assert "unknown procedure 'claenup' (did you mean cleanup?)" in error
    assert "recipe.conf" in error


# -- the recipe's own settings


def test_recipe_changes_the_form_of_the_archive(installation: Installation, source: Path) -> None:
    """avs.conf is layered, and the image's recipe is the last layer."""
    installation.recipe(*FIRST, more="\n[pack]\nmethod = tar\ncompress = xz\n")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1")
    assert "rootimg.tar.xz" in served_set(installation.served())


def test_recipe_cannot_set_what_it_has_no_say_in(installation: Installation, source: Path) -> None:
    """A setting that has no effect is refused, not silently passed over."""
    other = f"file://{installation.top}/other"
    installation.recipe(*FIRST, more=f"\n[paths]\nstore = {other}\n")
    result = installation.create(source, code=None)
    if result.code == 0:
        assert f"of {other}/" in result.stdout
    else:
        assert "[paths]" in result.error
        assert "recipe.conf" in result.error


def test_recipe_asks_for_a_message(installation: Installation, source: Path) -> None:
    installation.recipe(*FIRST, more="\n[image]\nrequire_message = yes\n")
    assert "-m" in installation.create(source, code=1).error
    installation.create(source, "-m", "why")


# -- the shipped ones


def test_build_prep_puts_site_files(installation: Installation, source: Path) -> None:
    etc = source / "rootimg/etc"
    (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    write(etc / "hosts", "of the build host\n")
    write(etc / "hosts.deny", "of the package\n")
    for name in ("hosts", "hosts.allow", "resolv.conf", "not.in.the.list"):
        installation.site_file(f"files/{name}", f"site {name}\n", 0o600)
    installation.site_file(f"images/{PROFILE}/files/hosts", "hosts of this image\n")
    (installation.site / "files/localtime").symlink_to(write(installation.top / "Zone", "TZif2"))
    shutil.rmtree(source / "rootimg/home")
    installation.create(source)
    built = installation.tree() / "rootimg/etc"
    assert (built / "hosts").read_text() == "hosts of this image\n"
    assert (built / "hosts.allow").read_text() == "site hosts.allow\n"
    assert (built / "hosts.allow").stat().st_mode & 0o7777 == 0o644
    assert (built / "hosts.deny").read_text() == "of the package\n"
    assert not (built / "resolv.conf").is_symlink()
    assert (built / "resolv.conf").read_text() == "site resolv.conf\n"
    assert (built / "localtime").read_bytes() == b"TZif2"
    assert not (built / "not.in.the.list").exists()
    assert (built.parent / "home").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in built.iterdir() if path.name.endswith(".avs")] == []


def test_build_prep_with_options(installation: Installation, source: Path) -> None:
    shutil.rmtree(source / "rootimg/home")
    for name in ("hosts", "motd"):
        installation.site_file(f"files/{name}", f"site {name}\n")
    installation.recipe(*FIRST, "build_prep", more="\n[build_prep]\nfiles = motd\nhome = no\n")
    installation.create(source)
    root = installation.tree() / "rootimg"
    assert (root / "etc/motd").read_text() == "site motd\n"
    assert not (root / "etc/hosts").exists()
    assert not (root / "home").exists()


def test_steps_on_a_tree_without_anything(installation: Installation, source: Path) -> None:
    """No /etc, no /var: a step that has nothing to do does nothing."""
    shutil.rmtree(source / "rootimg")
    (source / "rootimg/only").mkdir(parents=True)
    installation.create(source)
    assert [path.name for path in (installation.tree() / "rootimg").iterdir()] == ["only"]


def test_yum_repos_on_an_image_of_debs(installation: Installation, source: Path) -> None:
    installation.define("deb", "debian12")
    installation.site_file("files/yum.repos.d/site.repo", "[site]\n")
    result = installation.run("create", "deb", "--from", str(source), "-V")
    assert "setup_yum_repos" not in result.stdout + result.stderr, "it is no step of such an image"
    assert not (installation.tree("deb", "debian12") / "rootimg/etc/yum.repos.d").exists()
    assert "+/- PKGS" in result.stdout


def test_packages_of_a_deb_image_are_counted(installation: Installation, source: Path) -> None:
    installation.define("deb", "debian12")
    stanzas = ["installed", "installed", "config-files", "half-configured", "installed"]
    text = "".join(f"Package: p{n}\nStatus: install ok {state}\nVersion: 1\n\n" for n, state in enumerate(stanzas))
    write(source / "rootimg/var/lib/dpkg/status", text)
    result = installation.run("create", "deb", "--from", str(source), "--json")
    assert result.document["steps"][-1]["packages_after"] == 3


def test_cleanup(installation: Installation, source: Path) -> None:
    root = source / "rootimg"
    gone = ["var/cache/dnf/a/b/c", "var/cache/yum/x", "var/cache/apt/pkgcache.bin", "var/lib/apt/lists/l"]
    gone += ["var/cache/debconf/templates.dat-old", "var/cache/ldconfig/aux-cache", "tmp/file", "tmp/.hidden/file"]
    gone += ["var/tmp/d/file", "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub"]
    gone += ["var/lib/dbus/machine-id", "var/lib/systemd/random-seed"]
    kept = ["var/cache/debconf/templates.dat", "var/cache/other/x", "etc/ssh/sshd_config", "etc/ssh/moduli"]
    emptied = ["var/log/messages", "var/log/deep/er/file", "etc/machine-id"]
    for name in [*gone, *kept, *emptied]:
        write(root / name, f"{name}\n")
    os.chown(root / "var/log/messages", UID, GID)
    (root / "var/log/messages").chmod(0o640)
    (root / "tmp/link").symlink_to("/etc")
    (root / "var/log/link").symlink_to("/etc/passwd")
    machine = look(Path("/etc"), times=False, skip=["fsvs"])
    installation.create(source)
    built = installation.tree() / "rootimg"
    assert [name for name in gone if os.path.lexists(built / name)] == []
    assert [name for name in kept if (built / name).read_text() != f"{name}\n"] == []
    assert [name for name in emptied if (built / name).read_bytes() != b""] == []
    status = (built / "var/log/messages").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (UID, GID, 0o640)
    assert (built / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert list((built / "tmp").iterdir()) == list((built / "var/tmp").iterdir()) == []
    assert (built / "var/cache/apt").is_dir()
    assert (built / "var/log/link").is_symlink()
    assert difference(machine, look(Path("/etc"), times=False, skip=["fsvs"])) == {}


def test_cleanup_with_options(installation: Installation, source: Path) -> None:
    root = source / "rootimg"
    for name in ("var/cache/dnf/x", "srv/cache/x", "tmp/x", "var/log/x", "etc/machine-id"):
        write(root / name, "kept\n")
    more = "\n[cleanup]\ncaches = srv/cache/*\ntemporary =\nlogs = no\nidentity = no\n"
    installation.recipe(*FIRST, "cleanup", more=more)
    installation.create(source)
    built = installation.tree() / "rootimg"
    assert not (built / "srv/cache/x").exists()
    for name in ("var/cache/dnf/x", "tmp/x", "var/log/x", "etc/machine-id"):
        assert (built / name).read_text() == "kept\n", name


@pytest.mark.parametrize("value", ["../../../outside", "/outside"])
def test_cleanup_never_leaves_the_image(installation: Installation, source: Path, value: str) -> None:
    outside = write(installation.state / "builds/outside/file").parent
    inside = Path(value.replace("/outside", str(outside))) if value.startswith("/") else value
    more = f"\n[cleanup]\ncaches = {inside}\ntemporary = {inside}\n"
    installation.recipe(*FIRST, "cleanup", more=more)
    installation.create(source, code=None)
    assert (outside / "file").exists()


def test_prepare_removes_what_was_there(installation: Installation, source: Path) -> None:
    installation.create(source)
    write(installation.tree() / "rootimg/etc/by hand")
    write(installation.tree() / "stray")
    installation.create(source)
    assert not (installation.tree() / "rootimg/etc/by hand").exists()
    assert not (installation.tree() / "stray").exists()

"""On a management node: lsdef, genimage, packimage, nodeset, xdsh, and no moment without an image."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from fakes import xcat
from fakes.counted import counting, counts
from fakes.node import ManagementNode, contents, facts, osimage, unpack
from harness import TOP, Result

pytestmark = pytest.mark.slow

PROD, TEST = osimage("example.prod"), osimage("example.test")
BYPASS = {"XCATBYPASS": "1"}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[ManagementNode]:
    """A node with two osimages and four nodes; nothing was built yet."""
    made = prepared(tmp_path)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


def prepared(top: Path) -> ManagementNode:
    made = ManagementNode(top)
    made.image("example.prod")
    made.image("example.test")
    made.nodes(PROD, "cn001", "cn002", "cn003")
    made.nodes(TEST, "cn009")
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagementNode]:
    """A node whose example.prod has the tags v1 and v2, which differ in all that nodes load."""
    made = prepared(tmp_path_factory.mktemp("template"))
    for tag, issue in (("v1", "the first"), ("v2", "the second")):
        made.knob("genimage", issue=issue)
        made.run("create", "example.prod", "-m", f"build of {tag}")
        made.run("tag", "example.prod", "-t", tag, "-m", f"tried {tag}")
    yield made
    assert made.close() == []


@pytest.fixture
def node(template: ManagementNode, tmp_path: Path) -> Iterator[ManagementNode]:
    made = ManagementNode.copy(template, tmp_path)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="module")
def packed_template(template: ManagementNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagementNode]:
    made = ManagementNode.copy(template, tmp_path_factory.mktemp("packed"))
    made.run("pack", "example.prod", "-t", "v1")
    yield made
    assert made.close() == []


@pytest.fixture
def packed(packed_template: ManagementNode, tmp_path: Path) -> Iterator[ManagementNode]:
    """As node, and v1 is served."""
    made = ManagementNode.copy(packed_template, tmp_path)
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


def served(made: ManagementNode) -> dict[str, str]:
    """All that nodes could load, and all that lies beside it."""
    return contents(made.installdir / "netboot", made.tftpdir)


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def plain_build(made: ManagementNode, name: str = PROD) -> None:
    """What an admin has without avsimage: a real rootimgdir by genimage and packimage, and nodes that boot it."""
    for program in ("genimage", "packimage"):
        done = made.program(program, name, **BYPASS)
        assert done.code == 0, str(done)
    made.reload()


def issue_of(made: ManagementNode, into: Path, profile: str = "example.prod") -> str:
    archive = made.served(profile) / xcat.packed(str(made.served(profile)))
    return (unpack(archive, into) / "etc/issue").read_text().strip()


# the runbook


def test_the_classic_runbook(fresh: ManagementNode, tmp_path: Path) -> None:
    """Build, tag, try it on the test nodes, serve it, and go back; nodeset with osimage= in place of netboot=."""
    fresh.knob("genimage", issue="the first")
    created = fresh.run("create", "example.prod", "-m", "the first image")
    assert re.search(r"^\s+generate_image +\d+s ", created.stdout, re.MULTILINE)
    assert "built by genimage" in created.stdout
    assert "Image example.prod created" in created.stdout
    fresh.run("tag", "example.prod", "-t", "2026-01-02", "-m", "tried")
    assert "2026-01-02" in fresh.run("list-tags", "example.prod").stdout

    packed = fresh.run("pack", "example.prod", "-t", "2026-01-02", "-x", "example.test")
    assert f"Packed {PROD} tag 2026-01-02 as {TEST}\n" in packed.stdout
    assert f"Before they reboot: nodeset cn009 osimage={TEST}\n" in packed.stdout
    assert not os.path.lexists(fresh.served("example.prod"))
    done = fresh.program("nodeset", "cn009", f"osimage={TEST}")
    assert (done.code, done.stdout) == (0, "cn009: netboot rocky9.4-x86_64-example.test\n")

    packed = fresh.run("pack", "example.prod", "-t", "2026-01-02")
    due = re.search(r"^Before they reboot: (.*)$", packed.stdout, re.MULTILINE)
    assert due is not None
    assert due.group(1) == f"nodeset cn001-cn003 osimage={PROD}"
    words = shlex.split(due.group(1))
    assert fresh.program(words[0], *words[1:]).code == 0
    assert issue_of(fresh, tmp_path / "one") == "the first"

    fresh.knob("genimage", issue="the second")
    fresh.run("create", "example.prod", "-m", "the second image")
    fresh.run("tag", "example.prod", "-t", "2026-01-03")
    packed = fresh.run("pack", "example.prod", "-t", "2026-01-03")
    assert f"Served before, and kept: {fresh.served()}.2026-01-02\n" in packed.stdout
    assert f"Not the published one: {fresh.tftp()}/kernel\n" in packed.stdout
    assert issue_of(fresh, tmp_path / "two") == "the second"

    back = fresh.run("rollback", "example.prod", "-m", "nodes did not come up")
    assert "Serving example.prod.2026-01-02 again" in back.stdout
    assert "a reboot is enough" in back.stdout
    assert back.seconds < 5
    assert issue_of(fresh, tmp_path / "three") == "the first"
    status = fresh.run("status").stdout
    row = next(line.split() for line in status.splitlines() if line.startswith(PROD))
    assert row[1] == "2026-01-02"
    assert "cn001-cn003" in row
    assert "2026-01-03" in row  # the newest tag, which is not packed


# definitions


BROKEN = {
    "down": r"daemon xcatd cannot be reached.*systemctl start xcatd",
    "badhost": r"xcatd.* cannot be reached",
    "badcert": r"refuses the certificate",
    "foreigncert": r"refuses the certificate.*setup-local-client",
    "nocert": r"certificate",
    "denied": r"policy table does not let root.*tabdump policy",
    "garbage": r"did not answer with osimage definitions but with: <html>",
}


def test_a_broken_xcat_is_its_own_error_and_never_a_fall_back(node: ManagementNode) -> None:
    stanza = node.top / "osimages.stanza"
    lines = [f"    {key}={value}" for key, value in {"objtype": "osimage", **node.tables["osimage"][PROD]}.items()]
    stanza.write_text("\n".join([f"{PROD}:", *lines, ""]))
    node.configure("xcat", definitions=str(stanza))
    before = served(node)
    said = set()
    for mode, wanted in BROKEN.items():
        node.daemon(mode)
        error = node.run("list-tags", "example.prod", code=1).error
        assert re.search(wanted, error, re.DOTALL), error
        assert "no osimage" not in error
        assert "stand-in" not in error
        said.add(error.splitlines()[0])
    assert (
        len(said) == len(BROKEN) - 2
    )  # a host that has no address cannot be reached either; a certificate is no good twice
    node.daemon("down")
    for words in (["status"], ["create", "example.prod"], ["pack", "example.prod", "-t", "v1"]):
        assert re.search(BROKEN["down"], node.run(*words, code=1).error, re.DOTALL)
    assert served(node) == before
    assert {call["program"] for call in node.calls()} == {"lsdef"}


def test_bypass_by_another_user(node: ManagementNode) -> None:
    node.knobs["user"] = "xcatlab"
    node.save()
    assert "only root may bypass" in node.run("list-tags", "example.prod", code=1, XCATBYPASS="1").error


def test_bypass_reads_the_tables_without_the_daemon(node: ManagementNode) -> None:
    """Modules of xCAT that do not load say so on the standard output, before the answer."""
    node.knobs.update(daemon="down", noise=True)
    node.save()
    assert "v1" in node.run("list-tags", "example.prod", XCATBYPASS="1").stdout


def test_a_hanging_lsdef_is_ended(node: ManagementNode) -> None:
    node.daemon("hang")
    script = "import sys; from xcat_avs import cli; from xcat_avs.definitions import tables; tables.TIMEOUT = 1.0; cli.main()"
    result = node.finish(node.start([sys.executable, "-c", script, "-c", "list-tags", "example.prod"]))
    assert re.search(r"xCAT does not answer: .*lsdef did not end within 1 s", result.error)
    assert result.seconds < 10


def test_xcat_that_must_be_there_and_is_not(node: ManagementNode) -> None:
    node.configure("xcat", use="yes", definitions=str(node.top / "osimages.stanza"))
    path = os.environ.get("PATH", "/usr/bin:/bin")
    error = node.run("list-tags", "example.prod", code=1, PATH=path, XCATROOT=str(node.top / "nowhere")).error
    assert f"lsdef is neither in PATH nor in {node.top}/nowhere" in error


def test_a_new_xcat_has_no_osimages(fresh: ManagementNode) -> None:
    fresh.tables["osimage"] = {}
    fresh.save()
    error = fresh.run("list-tags", "example.prod", code=1).error
    assert "no osimage 'example.prod' among 0 definitions" in error
    assert "no osimage has been packed" in fresh.run("status").stdout


def test_a_newline_in_one_image_does_not_stop_the_others(node: ManagementNode) -> None:
    node.define(TEST, otherifce="eth0\n    kernelver=6.6\nbeside it:")
    assert "v1" in node.run("list-tags", "example.prod").stdout
    assert "newline" in node.run("list-tags", "example.test", code=1).error


def test_places_come_from_the_site_table(node: ManagementNode) -> None:
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    document = node.run("status", "--json").document["osimages"][0]
    assert document["rootimgdir"] == str(node.served())
    assert document["coherent"] is True
    assert (node.tftp() / "kernel").exists()


# images defined the classic way


def test_a_classic_image_needs_no_chdef_to_be_looked_at(fresh: ManagementNode, tmp_path: Path) -> None:
    fresh.classic()
    source = tmp_path / "source"
    (source / "rootimg/etc").mkdir(parents=True)
    fresh.run("create", "example.prod", "--from", str(source), "-m", "as it came")
    fresh.run("tag", "example.prod", "-t", "v1")
    assert "v1" in fresh.run("list-tags", "example.prod").stdout
    assert "as it came" in fresh.run("show", PROD, "-t", "v1").stdout
    assert "export FSVS_REPOSITORY=" in fresh.run("env", "example.prod").stdout
    assert "generate_image" in fresh.run("steps", "example.prod").stdout
    fresh.run("status", "example.prod")


def test_where_xcat_would_refuse_a_classic_image_the_chdef_is_said_first(fresh: ManagementNode) -> None:
    fresh.classic()
    wanted = f"chdef -t osimage {PROD} osvers=rocky9.4 osarch=x86_64 profile=example.prod"
    error = fresh.run("create", "example.prod", code=1).error
    assert f"`{wanted}`" in error
    assert f"`avsimage -c create {PROD} --define`" in error
    assert {call["program"] for call in fresh.calls()} == {"lsdef"}
    words = shlex.split(wanted)
    assert fresh.program(words[0], *words[1:]).code == 0
    assert "Image example.prod created" in fresh.run("create", "example.prod").stdout


def test_pack_says_the_chdef_before_any_work(node: ManagementNode) -> None:
    node.classic()
    node.image("example.test", profile="")
    for words, name in ((["pack", "example.prod", "-t", "v1"], PROD), (["pack", PROD, "-t", "v1", "-x", TEST], TEST)):
        error = node.run(*words, code=1).error
        assert f"`chdef -t osimage {name} " in error
    assert not node.calls("packimage")
    assert not (node.installdir / "netboot").exists()


def test_define_runs_the_chdef(fresh: ManagementNode) -> None:
    fresh.classic()
    created = fresh.run("create", "example.prod", "--define")
    line = f"chdef -t osimage {PROD} osvers=rocky9.4 osarch=x86_64 profile=example.prod"
    assert line in created.stderr + created.stdout
    assert fresh.calls("chdef")[0]["argv"] == shlex.split(line)[1:]
    fresh.reload()
    assert fresh.tables["osimage"][PROD]["profile"] == "example.prod"
    fresh.forget()
    fresh.run("create", "example.prod", "--define")
    assert not fresh.calls("chdef")


@pytest.mark.parametrize(
    ("attributes", "mode", "said"),
    [
        ({"rootimgdir": ""}, "pack", "rootimgdir={installdir}/netboot/rocky9.4/x86_64/example.prod"),
        ({"pkglist": ""}, "create", "pkglist="),
    ],
)
def test_other_attributes_that_xcat_needs_are_named_with_their_chdef(
    node: ManagementNode, attributes: dict[str, str], mode: str, said: str
) -> None:
    """packimage takes an image with neither rootimgdir nor exlist for one that is not there."""
    node.define(PROD, **attributes)
    error = node.run(mode, "example.prod", *(["-t", "v1"] if mode == "pack" else []), code=1).error
    assert f"chdef -t osimage {PROD} {said.format(installdir=node.installdir)}" in error
    assert not node.calls("genimage")
    assert not node.calls("packimage")


def test_an_image_without_rootimgdir_is_served_at_xcats_place(node: ManagementNode) -> None:
    (node.top / "exlist").write_text("./nothing\n")
    node.define(PROD, rootimgdir="", exlist=str(node.top / "exlist"))
    node.run("pack", "example.prod", "-t", "v1")
    assert (node.served() / "rootimg.cpio.gz").exists()


def test_a_statelite_image_is_not_packed(node: ManagementNode) -> None:
    name = node.define(
        "rocky9.4-x86_64-statelite-example.prod", **{**node.tables["osimage"][PROD], "provmethod": "statelite"}
    )
    node.run("pack", "example.prod", "-t", "v1", "-x", name, code=1)
    assert not node.calls("packimage")


# unsafe values


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("rootimgdir", "{top}/sp ace"), ("pkglist", "{top}/a;touch {top}/done"), ("otherpkglist", "{top}/$(touch {top}/done)"),
        ("profile", "a&touch"), ("kernelver", "1`touch {top}/done`"), ("netdrivers", "a'b"), ("exlist", '{top}/"x"'),
        ("environvar", "A=1;touch {top}/done"), ("pkgdir", "{top}/$(touch {top}/done)"), ("driverupdatesrc", "dud:/a|touch {top}/done"),
    ],
)  # fmt: skip
def test_what_a_shell_would_run_is_refused_before_anything_runs(
    node: ManagementNode, attribute: str, value: str
) -> None:
    node.define(PROD, **{attribute: value.format(top=node.top)})
    packs = attribute in ("rootimgdir", "exlist", "environvar")
    error = node.run(*(["pack", PROD, "-t", "v1"] if packs else ["create", PROD]), code=1).error
    assert PROD in error
    assert attribute in error
    assert {call["program"] for call in node.calls()} == {"lsdef"}
    assert not (node.top / "done").exists()


def test_postinstall_may_have_arguments(fresh: ManagementNode) -> None:
    script = fresh.top / "post.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    fresh.define(PROD, postinstall=f"{script} one two")
    fresh.run("create", "example.prod")


# builds


@pytest.mark.parametrize("first", [True, False], ids=["nothing served yet", "a plain image served"])
def test_a_build_touches_nothing_that_is_served(fresh: ManagementNode, first: bool) -> None:
    if not first:
        plain_build(fresh)
        fresh.knob("genimage", issue="the second")
    before = served(fresh)
    fresh.forget()
    (fresh.fake / "filled").unlink(missing_ok=True)
    fresh.knob("genimage", second_gate="go")
    process = fresh.avsimage("create", "example.prod")
    wait_for(fresh.fake / "filled")
    # While it runs. An empty rootimgdir would be kept as what was served before, and be served by a rollback.
    if first:
        assert not os.path.lexists(fresh.served())
    else:
        assert served(fresh) == before
    (fresh.fake / "go").touch()
    result = fresh.finish(process)
    assert result.code == 0, str(result)
    # The programs of xCAT hold on to nothing but their lock files.
    after = served(fresh)
    assert after == before
    assert len(fresh.calls("inner genimage")) == 1


def test_a_build_touches_nothing_that_is_published_while_it_runs(node: ManagementNode) -> None:
    """The link moves to another directory below a genimage that goes on writing to rootimgdir."""
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    node.knob("genimage", issue="the third", second_gate="go")
    process = node.avsimage("create", "example.prod")
    wait_for(node.fake / "filled")
    node.run("pack", "example.prod", "-t", "v2")
    before = served(node)
    (node.fake / "go").touch()
    result = node.finish(process)
    assert served(node) == before, "a build wrote into what is served"
    assert result.code == 0, str(result)
    tree = node.tree()
    assert b"the third" in (tree / "kernel").read_bytes()


def test_nothing_of_the_host_stays_in_the_tree(fresh: ManagementNode) -> None:
    fresh.run("create", "example.prod")
    root = fresh.tree() / "rootimg"
    assert (root / "etc/os-release").exists()
    assert list((root / "dev/shm").iterdir()) == []
    assert list((root / "run").iterdir()) == []
    assert (root / "dev/null").is_char_device()


def test_an_unchanged_rebuild_makes_no_revision(fresh: ManagementNode, repository: Path) -> None:
    """Its initrds, its history of dnf and its database of rpm are others each time."""
    fresh.knob("genimage", rpm=str(next(repository.glob("needs-nothing-*"))))
    first = fresh.run("create", "example.prod", "--json")
    assert first.document["changed"] is True
    assert first.document["steps"][-1]["packages_after"] == 1, "the database is where the image's rpm looks for it"
    assert first.stderr == ""
    root = fresh.tree() / "rootimg"
    before = {name: (fresh.tree() / name).read_bytes() for name in ("initrd-stateless.gz", "initrd-statelite.gz")}
    assert not list(root.glob("**/.rpmdb"))
    assert not list((root / "var/lib/dnf").iterdir())
    assert not (root / "etc/dracut.conf.d").exists()
    second = fresh.run("create", "example.prod", "--json")
    assert second.document["changed"] is False, fresh.run("diff", "example.prod", "-r", "2:").stdout
    assert {name: (fresh.tree() / name).read_bytes() for name in before} == before
    fresh.knob("genimage", rpm=str(next(repository.glob("bash-*"))))
    third = fresh.run("create", "example.prod", "--json")
    assert third.document["changed"] is True
    assert {name: (fresh.tree() / name).read_bytes() for name in before} == before, "only what changed was stored"
    fresh.knob("genimage", rpm=str(next(repository.glob("bash-*"))), issue="another kernel")
    assert fresh.run("create", "example.prod", "--json").document["changed"] is True
    assert (fresh.tree() / "initrd-stateless.gz").read_bytes() != before["initrd-stateless.gz"]


def test_a_tree_that_packimage_has_packed(fresh: ManagementNode) -> None:
    """What the pack put into it is no part of the image, and root's hash was somebody's."""
    (fresh.installdir / "postscripts/mypostscript").write_text("#!/bin/sh\n")
    plain_build(fresh)
    shadow = fresh.served() / "rootimg/etc/shadow"
    before = shadow.read_text()
    assert before.startswith("root:$6$salt$hash:13880:")
    result = fresh.run("create", "example.prod", "--from", str(fresh.served()))
    root = fresh.tree() / "rootimg"
    assert (root / "etc/shadow").read_text() == before.replace("$6$salt$hash", "*")
    assert not (root / "xcatpost").exists()
    assert not (root / "opt/xcat/xcatinfo").exists()
    for said in ("packed by packimage", "/xcatpost", "/opt/xcat/xcatinfo", "root's password"):
        assert said in result.stdout
    assert shadow.read_text() == before, "the directory itself stays as it is"


def test_a_mount_that_genimage_leaves_is_undone(fresh: ManagementNode) -> None:
    """The host's own files below it stay."""
    marker = Path("/run") / f"avs-test-{os.getpid()}"
    marker.touch()
    try:
        fresh.knob("genimage", leave_mount=True)
        fresh.run("create", "example.prod")
        assert marker.exists()
    finally:
        marker.unlink()
    assert list((fresh.tree() / "rootimg/run").iterdir()) == []


def test_the_kernel_and_the_initrd_are_those_that_genimage_made(fresh: ManagementNode) -> None:
    """Not the newest of the image, nor the initrd of the kernel's package, which cannot boot from the network."""
    fresh.define(PROD, kernelver="6.1.0-1.x86_64")
    fresh.knob("genimage", kernels=["6.9.9-1.x86_64"])
    fresh.run("create", "example.prod")
    assert (fresh.tree() / "kernel").read_bytes().startswith(b"the kernel 6.1.0-1.x86_64")
    unpacked = gzip.decompress((fresh.tree() / "initrd-stateless.gz").read_bytes())
    assert b"initrd of xCAT, stateless, for 6.1.0-1.x86_64" in unpacked
    assert (fresh.tree() / "initrd-statelite.gz").exists()


def test_what_dracut_could_not_do_is_a_warning(fresh: ManagementNode) -> None:
    lines = [
        "dracut-install: FAILED: /usr/lib/dracut/dracut-install nfsroot",
        "dracut-install: ERROR: installing 'mount.nfs'",
        "all is well",
    ]
    fresh.knob("genimage", log=lines)
    result = fresh.run("create", "example.prod")
    for line in lines[:2]:
        assert re.search(rf"^Warning: .*{re.escape(line)}$", result.stderr, re.MULTILINE)
    assert "all is well" not in result.stderr


def test_what_genimage_wrote_into_the_definition_is_shown(fresh: ManagementNode) -> None:
    fresh.define(PROD, permission="", pkgdir="")
    fresh.knob("genimage", attributes={"kernelver": "6.1.0-1.x86_64"})
    before = dict(fresh.tables["osimage"][PROD])
    result = fresh.run("create", "example.prod", "--json")
    changes = result.document["definition_changes"]
    assert [change.split(":")[0] for change in changes] == ["kernelver", "permission", "pkgdir"]
    assert "kernelver: '' -> '6.1.0-1.x86_64'" in changes
    fresh.reload()
    after = fresh.tables["osimage"][PROD]
    assert {key for key in after if after[key] != before.get(key)} == {"kernelver", "permission", "pkgdir"}
    assert "The definition was changed by the build" not in fresh.run("create", "example.prod").stdout


def test_a_resumed_build_does_not_repeat_genimage_for_what_genimage_changed(fresh: ManagementNode) -> None:
    fresh.define(PROD, permission="")
    step = fresh.installdir / "custom/avs/procedures/common/mine.sh"
    step.parent.mkdir(parents=True)
    step.write_text(f"#!/bin/sh\ntest -e {fresh.top}/fixed\n")
    step.chmod(0o755)
    recipe = fresh.installdir / "custom/avs/images/example.prod/recipe.conf"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("[recipe]\nsteps = prepare_image_directory, generate_image, mine\n")
    assert "step mine failed" in fresh.run("create", "example.prod", code=1).error
    (fresh.top / "fixed").touch()
    fresh.run("create", "example.prod", "-b")
    assert len(fresh.calls("inner genimage")) == 1


def failing_step(made: ManagementNode, script: str) -> None:
    """A recipe whose last step is a script, after genimage."""
    step = made.installdir / "custom/avs/procedures/common/mine.sh"
    step.parent.mkdir(parents=True)
    step.write_text(f"#!/bin/sh\n{script}\n")
    step.chmod(0o755)
    recipe = made.installdir / "custom/avs/images/example.prod/recipe.conf"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("[recipe]\nsteps = prepare_image_directory, generate_image, mine\n")


def test_a_daemon_that_goes_away_during_a_build(fresh: ManagementNode) -> None:
    """The build is committed; what was read at its start counts where even the tables cannot be read."""
    fresh.define(PROD, permission="")
    failing_step(fresh, f"test -e {fresh.top}/fixed")
    fresh.knob("genimage", daemon="down")
    result = fresh.run("create", "example.prod", code=1)
    assert "step mine failed" in result.error
    assert re.search("^Warning: .*read without xcatd.*cannot be reached", result.stderr, re.MULTILINE)
    (fresh.top / "fixed").touch()
    fresh.knobs.update(daemon="up", genimage={})
    fresh.save()
    fresh.reload()
    assert fresh.run("create", "example.prod", "-b", "--json").document["revision"] == 2
    assert len(fresh.calls("inner genimage")) == 1  # the seed was noted all the same
    fresh.knobs.update(genimage={"daemon": "down", "issue": "another"}, lsdef={"bypass_fails": True})
    fresh.save()
    result = fresh.run("create", "example.prod")
    assert "Stored as revision 3" in result.stdout
    assert re.search("^Warning: .*what was read at the start counts", result.stderr, re.MULTILINE)


@pytest.mark.parametrize("when", ["in a step", "while a failed step is noted"])
def test_an_interrupt_is_not_held_by_a_daemon_that_hangs(fresh: ManagementNode, when: str) -> None:
    script = "touch {0}/there; sleep 600" if when == "in a step" else "echo of the step; exit 1"
    failing_step(fresh, script.format(fresh.top))
    fresh.knob("genimage", daemon="hang")
    fresh.knob("lsdef", bypass_hangs=True)
    process = fresh.avsimage("create", "example.prod")
    if when == "in a step":
        wait_for(fresh.top / "there")
    else:
        wait_for(fresh.tree() / "kernel")
        deadline = time.monotonic() + 30
        while not (
            fresh.calls("lsdef") and fresh.calls("lsdef")[-1]["time"] > fresh.calls("genimage")[0]["time"] + 0.2
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    result = fresh.finish(process)
    assert time.monotonic() - started < 15
    if when == "in a step":
        assert result.code == 128 + signal.SIGINT, str(result)
    else:
        assert "step mine failed" in result.error  # the first error is the one that is told


def test_what_genimage_wrote_over_is_a_warning(fresh: ManagementNode) -> None:
    """It writes back what it read at its start, also over what somebody has set meanwhile."""
    old, new = fresh.tables["osimage"][PROD]["pkgdir"], "/install/newer"
    fresh.knob("genimage", attributes={"pkgdir": "/install/older"})
    result = fresh.run("create", "example.prod")
    assert re.search(rf"^Warning: .*pkgdir was '{old}'.*'/install/older' now", result.stderr, re.MULTILINE)
    assert "The definition was changed by the build: pkgdir" in result.stdout
    assert new not in result.stderr


def test_a_build_that_fails_shows_the_end_of_its_log(fresh: ManagementNode) -> None:
    fresh.knob(
        "genimage",
        log=["No match for argument: no-such-package", "Error: Unable to find a match: no-such-package"],
        code=1,
    )
    before = served(fresh)
    error = fresh.run("create", "example.prod", code=1).error
    assert "step generate_image failed" in error
    assert "Unable to find a match: no-such-package" in error
    assert f"log: {fresh.logs}/{PROD}/generate_image.log" in error
    assert "nothing was committed" in error
    assert "avsimage -c create example.prod -b" in error
    assert served(fresh) == before
    assert fresh.run("show", "example.prod", code=1).error


def test_a_pkglist_that_is_not_there(fresh: ManagementNode) -> None:
    fresh.define(PROD, pkglist="/nonexistent/pkglist")
    assert "/nonexistent/pkglist" in fresh.run("create", "example.prod", code=1).error
    fresh.configure("image", pkglist="minimal")
    assert "/nonexistent/pkglist" in fresh.run("create", "example.prod", code=1).error


@pytest.mark.parametrize("choice", ["own", "minimal"])
def test_which_pkglist_is_installed(fresh: ManagementNode, choice: str) -> None:
    own = Path(fresh.tables["osimage"][PROD]["pkglist"])
    text = own.read_text()
    if choice == "minimal":
        fresh.configure("image", pkglist="minimal")
    fresh.run("create", "example.prod")
    built = (fresh.tree() / "rootimg/etc/built-from").read_text().splitlines()
    minimal = (TOP / "share/xcat/avs/minimal/el.pkglist").read_text().splitlines()
    wanted = text if choice == "own" else "\n".join(minimal)
    assert built == [line for line in wanted.splitlines() if line and not line.startswith("#")]
    assert own.read_text() == text


def test_settings_become_options_of_genimage_and_stay_in_the_definition(fresh: ManagementNode) -> None:
    fresh.configure("image", net_modules="igb, mlx5_core", storage_modules="nvme", filesystem_modules="nfs,igb")
    fresh.configure("image", interface="eth0", kernel="5.14.0-1", kernel_suffix=".el9.x86_64")
    result = fresh.run("create", "example.prod", "--json")
    argv = fresh.calls("genimage")[0]["argv"]
    assert argv == ["-n", "igb,mlx5_core,nvme,nfs", "-i", "eth0", "-k", "5.14.0-1.el9.x86_64", PROD]
    inner = fresh.calls("inner genimage")[0]["argv"]
    assert inner[inner.index("-n") + 1] == "igb,mlx5_core,nvme,nfs"
    changed = {change.split(":")[0] for change in result.document["definition_changes"]}
    assert {"kernelver", "netdrivers", "nodebootif"} <= changed
    fresh.reload()
    assert fresh.tables["osimage"][PROD]["nodebootif"] == "eth0"
    fresh.configure("image", interface="eth0;id")
    assert "[image] interface has 'eth0;id'" in fresh.run("create", "example.prod", code=1).error


def test_another_provider_builds_and_changes_nothing_in_the_tables(fresh: ManagementNode) -> None:
    fresh.configure("image", provider="alma")
    before = json.dumps(fresh.tables)
    fresh.run("create", "example.prod")
    inner = fresh.calls("inner genimage")
    assert [call["cwd"] for call in inner] == [str(fresh.root / "share/xcat/netboot/alma")]
    assert "--tempfile" not in inner[0]["argv"]
    assert [call["argv"] for call in fresh.calls("genimage")] == [["--dryrun", PROD]]
    fresh.reload()
    assert json.dumps(fresh.tables) == before
    assert (fresh.tree() / "kernel").exists()
    assert served(fresh) == contents(fresh.installdir / "netboot", fresh.tftpdir)
    fresh.configure("image", provider="nosuch")
    assert "there is no " in fresh.run("create", "example.prod", code=1).error


def test_a_build_ended_by_a_signal_leaves_nothing_behind(fresh: ManagementNode) -> None:
    plain_build(fresh)
    before = served(fresh)
    (fresh.fake / "filled").unlink()
    fresh.knob("genimage", second_gate="never")
    process = fresh.avsimage("create", "example.prod")
    wait_for(fresh.fake / "filled")
    process.terminate()
    result = fresh.finish(process)
    assert result.code == 128 + signal.SIGTERM, str(result)
    assert served(fresh) == before


# packs


@pytest.mark.parametrize("packer", ["packimage", "own"])
def test_the_image_says_what_it_is(node: ManagementNode, tmp_path: Path, packer: str) -> None:
    node.configure("pack", packer=packer)
    node.run("pack", "example.prod", "-t", "v1", "-x", "example.test")
    root = unpack(node.served("example.test") / "rootimg.cpio.gz", tmp_path / "unpacked")
    tag = next(
        item for item in node.run("list-tags", "example.prod", "--json").document["tags"] if item["name"] == "v1"
    )
    wanted = {"AVS_OSIMAGE": TEST, "AVS_SOURCE": PROD, "AVS_TAG": "v1", "AVS_REVISION": str(tag["source"])}
    release = facts((root / "etc/avs-release").read_text())
    info = facts((root / "opt/xcat/xcatinfo").read_text())
    assert tag["date"].startswith(release["AVS_DATE"].rstrip("Z"))  # to the second
    wanted["AVS_DATE"] = release["AVS_DATE"]
    assert release == wanted
    assert {key: info.get(key) for key in wanted} == wanted
    assert info["IMAGENAME"] == TEST
    if packer == "packimage":
        assert re.fullmatch(r"[0-9a-f-]{36}", info["IMAGEUUID"])
        assert info["TIMESTAMP"]
    # The shell can read it.
    output = subprocess.run(
        ["sh", "-c", f". {root}/opt/xcat/xcatinfo; echo $AVS_TAG"], capture_output=True, text=True, check=True
    )
    assert output.stdout == "v1\n"


def test_packimage_gets_a_tree_that_is_thrown_away(node: ManagementNode, tmp_path: Path) -> None:
    """What it edits is in the archive and not in the store."""
    (tmp_path / "synced").write_text("synced\n")
    (tmp_path / "synclist").write_text(f"{tmp_path}/synced -> /etc/synced\n")
    node.define(PROD, synclists=str(tmp_path / "synclist"))
    for number in range(2):
        result = node.run("pack", "example.prod", "-t", "v1", "--force", "--json", "-V")
        changed = result.document["by_design"]
        assert set(changed) >= {"etc/localtime", "etc/shadow", "etc/synced", "opt/xcat/xcatinfo", "xcatpost"}
        assert {path for path in changed if not path.startswith(("opt/xcat", "xcatpost/"))} == {
            "etc/localtime", "etc/shadow", "etc/synced", "xcatpost",
        }  # fmt: skip
        assert "packimage changed 'etc/synced': a synclist" in result.stderr
        root = unpack(node.served() / "rootimg.cpio.gz", tmp_path / f"unpacked{number}")
        assert (root / "etc/synced").read_text() == "synced\n"
        assert (root / "etc/shadow").read_text().startswith("root:$6$salt$hash:")
        assert (root / "xcatpost/xcatdsklspost").exists()
        assert (root / "etc/issue").read_text() == "the first\n"
    assert not (node.served() / "rootimg").exists()
    assert sorted(path.name for path in node.served().iterdir()) == [
        "avs.json", "initrd-stateless.gz", "initrd-statelite.gz", "kernel", "rootimg.cpio.gz",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in node.served().iterdir()} == {0o644}
    said = node.run("verify", "example.prod", "-t", "v1", "--reproduce").stdout
    assert "as packimage never makes the same twice" in said
    assert "rootimg.cpio.gz: opt/xcat/xcatinfo: sha256, mtime (by packimage: the name of the image)" in said
    assert "[FAIL]" not in said
    url = f"file://{node.repository}/netboot/rocky9.4/x86_64/example.prod/tags/v1/rootimg/etc"
    assert "synced" not in subprocess.run(["svn", "ls", url], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--method", "cpio", "--compress", "gzip"], "rootimg.cpio.gz"), (["--method", "tar"], "rootimg.tar.gz"),
        (["--method", "tar", "--compress", "xz"], "rootimg.tar.xz"), (["--compress", "xz"], "rootimg.cpio.xz"),
        (["--method", "squashfs"], "rootimg.sfs"),
    ],
)  # fmt: skip
def test_every_method_of_packimage(node: ManagementNode, tmp_path: Path, words: list[str], name: str) -> None:
    (tmp_path / "exlist").write_text("./usr/share/doc*\n")
    node.define(PROD, exlist=str(tmp_path / "exlist"))
    node.run("pack", "example.prod", "-t", "v1", *words)
    assert [path.name for path in node.served().glob("rootimg.*")] == [name]
    root = unpack(node.served() / name, tmp_path / "unpacked")
    assert (root / "etc/issue").read_text() == "the first\n"
    assert not (root / "usr/share/doc").exists()
    assert facts((root / "etc/avs-release").read_text())["AVS_TAG"] == "v1"


def test_compressions_that_packimage_has_not_are_refused_first(node: ManagementNode) -> None:
    error = node.run("pack", "example.prod", "-t", "v1", "--compress", "zstd", code=1).error
    assert "[pack] packer = own" in error
    assert not node.calls("packimage")


EXLIST = """\
# what nodes do not need
./usr/share/doc*   # documentation
-./var/log/*
+./usr/share/doc/bash*
#INCLUDE:more.exlist#

"""


@pytest.mark.parametrize("packer", ["packimage", "own"])
def test_exlists_as_xcat_reads_them(node: ManagementNode, tmp_path: Path, packer: str) -> None:
    (tmp_path / "exlist").write_text(EXLIST)
    (tmp_path / "more.exlist").write_text("./boot*\n")
    node.define(PROD, exlist=str(tmp_path / "exlist"))
    node.configure("pack", packer=packer)
    node.run("pack", "example.prod", "-t", "v1")
    root = unpack(node.served() / "rootimg.cpio.gz", tmp_path / "unpacked")
    assert (root / "usr/share/doc/bash/README").exists()
    assert not (root / "boot").exists()
    assert list((root / "var/log").iterdir()) == []


def test_a_change_of_an_included_exlist_is_a_change(node: ManagementNode, tmp_path: Path) -> None:
    (tmp_path / "exlist").write_text("#INCLUDE:more.exlist#\n")
    (tmp_path / "more.exlist").write_text("./boot*\n")
    node.define(PROD, exlist=str(tmp_path / "exlist"))
    node.run("pack", "example.prod", "-t", "v1")
    (tmp_path / "more.exlist").write_text("./usr/share/doc*\n")
    assert "nothing was done" not in node.run("pack", "example.prod", "-t", "v1").stdout


def test_a_pack_reads_its_exlist_once_and_refuses_once(node: ManagementNode, tmp_path: Path) -> None:
    (tmp_path / "exlist").write_text("./usr/share/doc*\n")
    node.define(PROD, exlist=str(tmp_path / "exlist"))
    refusals = (
        "settings.refuse_writable",
        "xcat.fitness.refuse_incomplete",
        "xcat.fitness.refuse_unsafe",
        "pack.forms.refuse_compress",
    )
    environment = counting(tmp_path / "count", "definitions.exlist.read", *refusals)
    assert node.finish(node.avsimage("pack", "example.prod", "-t", "v1", **environment)).code == 0
    assert len(node.calls("packimage")) == 1
    found = counts(tmp_path / "count")
    assert (len(found), set(found.values())) == (5, {1})


@pytest.mark.parametrize("method", ["auto", "cpio"])
def test_xattrs_are_packed_by_tar(node: ManagementNode, tmp_path: Path, method: str) -> None:
    """Where the image has them and nothing else was asked for; from the build through the store to the archive."""
    source = tmp_path / "source"
    for directory in ("etc", "usr/bin"):
        (source / "rootimg" / directory).mkdir(parents=True)
    file = source / "rootimg/usr/bin/ping"
    file.write_bytes(b"ping")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    try:
        os.setxattr(file, "security.capability", capability)
    except OSError:
        pytest.skip("no xattrs on this file system")
    node.run("create", "example.prod", "--from", str(source), "-m", "with a capability")
    node.run("tag", "example.prod", "-t", "xattrs")
    result = node.run("pack", "example.prod", "-t", "xattrs", "--method", method)
    name = "rootimg.tar.gz" if method == "auto" else "rootimg.cpio.gz"
    assert [path.name for path in node.served().iterdir() if path.name.startswith("rootimg.")] == [name]
    assert ("cpio loses the capabilities" in result.stderr) == (method == "cpio")
    root = unpack(node.served() / name, tmp_path / "unpacked")
    if method == "cpio":
        assert os.listxattr(root / "usr/bin/ping") == []
    else:
        assert os.getxattr(root / "usr/bin/ping", "security.capability") == capability


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "a file that cpio could not read": ({"drop": ["./usr/bin/true"]}, r"lacks 1 of \d+ paths:\n +usr/bin/true"),
    "a nearly empty archive": ({"keep": 3}, r"lacks \d+ of \d+ paths"),
    "a truncated archive": ({"truncate": 1000}, r"failed|unexpected|lacks"),
    "hardly a byte in it": ({"hollow": True}, r"differs from the tag in \d+ paths:\n +root/payload: size, sha256"),
    "a change that is not by design": (
        {"edit": {"etc/issue": "another\n"}},
        r"differs from the tag in 1 paths:\n +etc/issue: size, sha256",
    ),
    "more of the accounts": (
        {"edit": {"etc/shadow": "root:x:1::::::\nann::1::::::\n"}},
        r"changed more in /etc/shadow",
    ),
    "two archives": ({"second": "rootimg.tar.gz"}, r"rootimg\.cpio\.gz, rootimg\.tar\.gz; one was expected"),
    "an exit code": ({"code": 3}, r"packimage failed with exit code 1"),
}


@pytest.mark.parametrize(("case", "real"), [*((case, False) for case in FAILURES), ("a truncated archive", True)])
def test_what_packimage_does_wrong_is_never_served(request: pytest.FixtureRequest, case: str, real: bool) -> None:
    node: ManagementNode = request.getfixturevalue("node" if real else "packed")
    knobs, said = FAILURES[case]
    if real:
        plain_build(node)
    before = served(node)
    node.knob("packimage", **knobs)
    error = node.run("pack", "example.prod", "-t", "v2", code=1).error
    assert re.search(said, error), error
    assert served(node) == before
    assert not (node.state / "staging" / PROD).exists()
    assert [entry.get("tag") for entry in journal(node)] == ([] if real else ["v1"])


def journal(made: ManagementNode, name: str = PROD) -> list[dict[str, Any]]:
    path = made.state / "journal" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_default_password_is_refused(packed: ManagementNode) -> None:
    before = served(packed)
    packed.tables["passwd"] = ""
    packed.save()
    error = packed.run("pack", "example.prod", "-t", "v2", code=1).error
    assert "chtab key=system passwd.username=root passwd.password=" in error
    assert served(packed) == before


def test_an_archive_that_was_there_already_does_not_stay(node: ManagementNode) -> None:
    """Neither in the tag nor beside it: nodes would load the older of the two."""
    plain_build(node)
    (node.served() / "rootimg.tar.gz").write_bytes(b"stale")
    node.run("pack", "example.prod", "-t", "v1", "--method", "cpio")
    assert [path.name for path in node.served().glob("rootimg.*")] == ["rootimg.cpio.gz"]


def lock_file(made: ManagementNode) -> Path:
    real = os.path.join(os.path.realpath(made.served()), "rootimg")
    return xcat.LOCKS / f"{real.replace('/', '.')}.{hashlib.md5(real.encode()).hexdigest()}"


@pytest.mark.parametrize("mode", ["pack", "rollback"])
def test_a_directory_that_genimage_works_on_is_left_alone(packed: ManagementNode, mode: str) -> None:
    packed.run("pack", "example.prod", "-t", "v2")
    before = served(packed)
    with open(lock_file(packed), "w") as stream:
        stream.write("4711")
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        error = packed.run(mode, "example.prod", *(["-t", "v1"] if mode == "pack" else []), code=1).error
    assert re.search(r"genimage, packimage or rmimage is at work on .*process 4711", error)
    assert served(packed) == before


def test_xcats_own_programs_wait_for_a_pack(packed: ManagementNode) -> None:
    """They find the lock taken, with the number of a process that the machine knows."""
    packed.knob("packimage", delay=2)
    process = packed.avsimage("pack", "example.prod", "-t", "v2")
    deadline = time.monotonic() + 20
    while not packed.calls("packimage") and time.monotonic() < deadline:
        time.sleep(0.02)
    done = packed.program("packimage", PROD, **BYPASS)
    assert done.code == 1
    match = re.search(r"genimage/packimage/rmimage process (\d+) running", done.stderr)
    assert match is not None, done.stderr
    words = Path(f"/proc/{match.group(1)}/cmdline").read_bytes().split(b"\0")
    assert b"xcat_avs" in words
    result = packed.finish(process)
    assert result.code == 0, str(result)


def test_one_pack_of_an_image_at_a_time(node: ManagementNode) -> None:
    node.knob("packimage", delay=2)
    process = node.avsimage("pack", "example.prod", "-t", "v1", "-u", "first")
    deadline = time.monotonic() + 20
    while not node.calls("packimage") and time.monotonic() < deadline:
        time.sleep(0.02)
    error = node.run("pack", "example.prod", "-t", "v2", code=1).error
    assert "is being packed by first (process " in error
    assert node.finish(process).code == 0
    assert node.run("status", "--json").document["osimages"][0]["tag"] == "v1"


def test_a_pack_ended_by_a_signal_leaves_nothing_behind(packed: ManagementNode) -> None:
    before = served(packed)
    packed.knob("packimage", delay=20)
    process = packed.avsimage("pack", "example.prod", "-t", "v2")
    deadline = time.monotonic() + 20
    while not packed.calls("packimage") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    result = packed.finish(process)
    assert result.code == 128 + signal.SIGINT, str(result)
    assert served(packed) == before
    assert not (packed.state / "staging" / PROD).exists()


# publishing


def test_the_real_directory_is_kept_and_can_be_served_again(node: ManagementNode, tmp_path: Path) -> None:
    node.knob("genimage", issue="by hand")
    plain_build(node)
    node.program("nodeset", "cn001-cn003", f"osimage={PROD}")
    real = {path.removeprefix(str(node.served())): fact for path, fact in contents(node.served()).items()}
    result = node.run("pack", "example.prod", "-t", "v1")
    match = re.search(r"^The directory that was there is kept as (.*)$", result.stdout, re.MULTILINE)
    assert match is not None
    kept = Path(match.group(1))
    assert re.fullmatch(r"example\.prod\.moved\.aside\.on\.\d{4}-\d\d-\d\d", kept.name)
    assert {path.removeprefix(str(kept)): fact for path, fact in contents(kept).items()} == real
    assert issue_of(node, tmp_path / "one") == "the first"

    back = node.run("rollback", "example.prod", "--json").document
    assert back["directory"] == kept.name
    assert issue_of(node, tmp_path / "two") == "by hand"
    assert back["nodeset_due"] is False  # TFTPDIR still holds the kernel that belongs to it
    assert node.run("rollback", "example.prod", "--json").document["directory"] == "example.prod.v1"
    assert issue_of(node, tmp_path / "three") == "the first"


def test_what_is_due_after_a_rollback_to_the_real_directory(node: ManagementNode) -> None:
    """Text and document say the same, and the osimage is still one that is managed."""
    node.knob("genimage", issue="by hand")
    plain_build(node)
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    back = node.run("rollback", "example.prod", "--json").document
    assert back["nodeset_due"] is True
    assert back["nodeset"] == ["nodeset", "cn001-cn003", f"osimage={PROD}"]
    documents = {document["osimage"]: document for document in node.run("status", "--json").document["osimages"]}
    assert documents[PROD]["nodeset_due"] is True
    assert documents[PROD]["coherent"] is False
    assert documents[PROD]["last"]["action"] == "rollback"


def test_a_tag_that_is_served_already(node: ManagementNode) -> None:
    node.run("pack", "example.prod", "-t", "v1")
    before, entries = served(node), journal(node)
    node.forget()
    again = node.run("pack", "example.prod", "-t", "v1")
    assert "serves tag v1" in again.stdout
    assert "--force" in again.stdout
    assert node.run("pack", "example.prod", "-t", "v1", "--json").document["changed"] is False
    assert not node.calls("packimage")
    assert (served(node), journal(node)) == (before, entries)
    forced = node.run("pack", "example.prod", "-t", "v1", "--force", "--json")
    assert forced.document["changed"] is True
    assert len(node.calls("packimage")) == 1
    assert len(journal(node)) == 2


@pytest.mark.parametrize("how", ["a file is gone", "another method", "another definition", "rolled back"])
def test_what_is_not_quite_served_is_packed_again(node: ManagementNode, how: str) -> None:
    node.run("pack", "example.prod", "-t", "v1")
    words: list[str] = []
    if how == "a file is gone":
        (node.served() / "initrd-stateless.gz").unlink()
    elif how == "another method":
        words = ["--method", "squashfs"]
    elif how == "another definition":
        node.define(PROD, exlist=str(node.top / "exlist"))
        (node.top / "exlist").write_text("./var/log/*\n")
    else:
        node.run("pack", "example.prod", "-t", "v2")
        node.run("rollback", "example.prod")
        node.run("pack", "example.prod", "-t", "v2")
        assert os.readlink(node.served()) == "example.prod.v2.2"
        assert len(list(node.served().parent.glob("example.prod@v2*"))) == 1, "the superseded one is gone"
        return
    assert node.run("pack", "example.prod", "-t", "v1", *words, "--json").document["changed"] is True
    assert (node.served() / "initrd-stateless.gz").exists()


def test_a_tag_served_already_whose_nodeset_is_due(node: ManagementNode) -> None:
    """Nothing is packed; but what the nodes would boot is still said, and --nodeset still runs, where it is due."""
    node.knob("nodeset", fail={"cn002": "no mac address"})
    node.run("pack", "example.prod", "-t", "v1", "--nodeset", code=1)
    node.knob("nodeset", fail={})
    node.forget()
    again = node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    assert not node.calls("packimage")
    assert [call["argv"] for call in node.calls("nodeset")] == [["cn002", f"osimage={PROD}"]]  # the others have theirs
    assert "cn002: netboot rocky9.4-x86_64-example.prod" in again.stdout
    node.forget()
    assert "a reboot is enough" in node.run("pack", "example.prod", "-t", "v1", "--nodeset").stdout
    assert not node.calls("nodeset")


def test_nodeset_is_run_and_its_answers_shown(node: ManagementNode) -> None:
    result = node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    assert [call["argv"] for call in node.calls("nodeset")] == [["cn001-cn003", f"osimage={PROD}"]]
    for number in (1, 2, 3):
        assert f"cn00{number}: netboot rocky9.4-x86_64-example.prod" in result.stdout
    assert (node.tftp() / "kernel").read_bytes() == (node.served() / "kernel").read_bytes()
    assert "rcons may not work" in result.stdout
    document = node.run("pack", "example.prod", "-t", "v2", "--nodeset", "--json").document
    assert (document["nodeset_exit"], document["nodeset_due"]) == (0, False)
    assert document["differing"] == []


def test_a_nodeset_that_fails_for_a_node(node: ManagementNode) -> None:
    node.knob("nodeset", fail={"cn002": "no mac address"})
    result = node.run("pack", "example.prod", "-t", "v1", "--nodeset", code=1)
    assert "cn001: netboot rocky9.4-x86_64-example.prod" in result.stdout
    assert "cn002: [mgmt]: Error: no mac address" in result.stdout
    assert "the image is published" in result.stdout
    assert os.readlink(node.served()) == "example.prod.v1"
    assert [entry["tag"] for entry in journal(node)] == ["v1"]
    document = node.run("pack", "example.prod", "-t", "v2", "--nodeset", "--json", code=1).document
    assert (document["changed"], document["nodeset_exit"], document["nodeset_due"]) == (True, 1, True)


def test_an_interrupt_of_nodeset_does_not_hide_what_was_published(packed: ManagementNode) -> None:
    packed.knob("nodeset", hang=True)
    process = packed.avsimage("pack", "example.prod", "-t", "v2", "--nodeset")
    deadline = time.monotonic() + 20
    while not packed.calls("nodeset") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    result = packed.finish(process)
    assert result.code == 128 + signal.SIGINT, str(result)
    assert os.readlink(packed.served()) == "example.prod.v2"
    assert "is published" in result.stdout + result.stderr


def test_rollback_runs_nodeset_as_well(node: ManagementNode) -> None:
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    node.run("pack", "example.prod", "-t", "v2", "--nodeset")
    result = node.run("rollback", "example.prod", "--nodeset")
    assert "cn003: netboot rocky9.4-x86_64-example.prod" in result.stdout
    assert (node.tftp() / "kernel").read_bytes() == (node.served() / "kernel").read_bytes()


@pytest.mark.parametrize("how", ["the same tag", "another tag", "rollback"])
def test_another_name_of_the_archive_needs_a_nodeset(node: ManagementNode, how: str) -> None:
    """nodeset writes the name of the archive where nodes boot from: they would ask for one that is gone."""
    node.run("tag", "example.prod", "-t", "v1-again", "-r", "2")  # the same kernel and initrd
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    assert "rootimg.cpio.gz" in (node.tftpdir / "xcat/xnba/nodes/cn001").read_text()
    if how == "rollback":
        node.run("pack", "example.prod", "-t", "v1-again", "--method", "squashfs", "--nodeset")
        assert "rootimg.sfs" in (node.tftpdir / "xcat/xnba/nodes/cn001").read_text()
        changed = node.run("rollback", "example.prod")
    else:
        tag = "v1" if how == "the same tag" else "v1-again"
        changed = node.run("pack", "example.prod", "-t", tag, "--method", "squashfs")
    assert "a reboot is enough" not in changed.stdout
    assert f"nodeset cn001-cn003 osimage={PROD}" in changed.stdout
    assert node.run("status", "--json").document["osimages"][0]["nodeset_due"] is True


def test_what_is_published_is_said_even_where_the_nodes_cannot_be_read(packed: ManagementNode) -> None:
    packed.knob("packimage", delay=1)
    process = packed.avsimage("pack", "example.prod", "-t", "v2")
    deadline = time.monotonic() + 20
    while not packed.calls("packimage") and time.monotonic() < deadline:
        time.sleep(0.02)
    packed.daemon("down")
    result = packed.finish(process)
    assert os.readlink(packed.served()) == "example.prod.v2"
    assert f"Packed {PROD} tag v2" in result.stdout, str(result)
    assert "cannot be reached" in result.stdout + result.stderr


# rollback, journal, status


def test_rollback_to_any_that_is_kept(node: ManagementNode, tmp_path: Path) -> None:
    for tag in ("v1", "v2"):
        node.run("pack", "example.prod", "-t", tag)
    node.run("tag", "example.prod", "-t", "v3", "-r", "2")
    node.run("pack", "example.prod", "-t", "v3")
    node.forget()
    result = node.run("rollback", "example.prod", "-t", "v1", "-m", "v3 and v2 hang", "-u", "anna", "--json")
    assert result.document["directory"] == "example.prod.v1"
    assert not node.calls("packimage")
    assert issue_of(node, tmp_path / "one") == "the first"
    assert node.run("rollback", "example.prod", "--json").document["directory"] == "example.prod.v3"
    assert "did you mean" in node.run("rollback", "example.prod", "-t", "v11", code=1).error
    assert node.run("rollback", "example.prod", "-t", "v3", "--json").document["changed"] is False
    entries = journal(node)
    assert [(entry["action"], entry["tag"]) for entry in entries] == [
        ("pack", "v1"), ("pack", "v2"), ("pack", "v3"), ("rollback", "v1"), ("rollback", "v3"),
    ]  # fmt: skip
    assert (entries[3]["user"], entries[3]["message"], entries[3]["before"]) == (
        "anna",
        "v3 and v2 hang",
        "example.prod.v3",
    )
    assert entries[3]["real"].startswith("uid 0 on ")


def test_rollback_without_anything_to_go_back_to(node: ManagementNode) -> None:
    assert "was not published by avsimage" in node.run("rollback", "example.prod", code=1).error
    node.run("pack", "example.prod", "-t", "v1")
    assert "no set was served before example.prod.v1" in node.run("rollback", "example.prod", code=1).error
    plain_build(node, TEST)
    before = served(node)
    node.run("rollback", "example.test", code=1)
    assert served(node) == before


def test_show_and_status_read_the_journal(node: ManagementNode) -> None:
    node.run("pack", "example.prod", "-t", "v1", "-u", "bert")
    node.run("pack", "example.prod", "-t", "v2", "-u", "bert")
    node.run("rollback", "example.prod", "-m", "v2 hangs at boot", "-u", "anna")
    last = node.run("status", "--json").document["osimages"][0]["last"]
    assert (last["action"], last["user"], last["message"]) == ("rollback", "anna", "v2 hangs at boot")
    shown = node.run("show", "example.prod", "-t", "v1").stdout
    assert "anna" in shown
    assert "v2 hangs at boot" in shown


def test_status_in_words_and_as_a_document(node: ManagementNode) -> None:
    assert node.run("status").stdout == "(no osimage has been packed yet)\n"
    node.run("pack", "example.prod", "-t", "v1", "-x", "example.test")
    node.run("pack", "example.prod", "-t", "v1", "--nodeset", "-u", "anna")
    node.run("pack", "example.prod", "-t", "v2", "-u", "bert")
    text = node.run("status").stdout
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["OSIMAGE", "TAG", "PACKED", "BY"]
    assert [line.split()[0] for line in lines[1:3]] == [PROD, TEST]
    assert re.search(rf"^{PROD} +v2 .* bert +example\.prod\.v1 +no +3 +cn001-cn003 +due +-$", text, re.MULTILINE)
    assert re.search(rf"^{TEST} +v1 .* root +- +- +1 +cn009 +due +v2$", text, re.MULTILINE)
    assert f"Due: nodeset cn001-cn003 osimage={PROD}" in lines
    assert f"Due: nodeset cn009 osimage={TEST}" in lines
    page = node.top / "page.html"
    node.run("show", "example.prod", "-t", "v1", "--html", str(page))
    cells = f"<td>{TEST}</td><td>v1</td><td class=n>1</td><td>cn009</td><td>due</td>"
    assert cells in page.read_text(encoding="utf-8"), "the nodes that the tag is served to"
    one, other = node.run("status", "--json").document["osimages"]
    assert (one["tag"], one["previous"], one["user"], one["coherent"], one["nodeset_due"], one["newest"]) == (
        "v2", "example.prod.v1", "bert", False, True, "",
    )  # fmt: skip
    assert (one["nodes"], one["noderange"]) == (["cn001", "cn002", "cn003"], "cn001-cn003")
    assert one["differing"] == [str(node.tftp() / name) for name in ("kernel", "initrd-stateless.gz")]
    assert (other["source"], other["coherent"]) == (PROD, None)
    assert len(node.run("status", "example.test", "--json").document["osimages"]) == 1
    assert "bmcpassword" not in json.dumps(node.calls("lsdef"))


def test_osimages_that_share_a_rootimgdir(node: ManagementNode) -> None:
    """They differ in their kernel command line, say; a new kernel concerns the nodes of both."""
    other = node.image("example.console", rootimgdir=str(node.served()), addkcmdline="console=ttyS1")
    node.nodes(other, "gn001", "gn002")
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    node.program("nodeset", "gn001,gn002", f"osimage={other}")
    assert node.run("status", "--json").document["osimages"][0]["nodeset_due"] is False
    packed = node.run("pack", "example.prod", "-t", "v2").stdout
    back = node.run("rollback", "example.prod", "--json").document
    again = node.run("rollback", "example.prod").stdout
    for text in (packed, again):
        assert f"nodeset cn001-cn003 osimage={PROD}" in text
        assert f"The same directory is that of {other}:" in text
        assert f"nodeset gn001,gn002 osimage={other}" in text
    assert [(entry["osimage"], entry["nodes"]) for entry in back["shared"]] == [(other, ["gn001", "gn002"])]
    one, two = node.run("status", "--json").document["osimages"]
    assert (one["osimage"], two["osimage"]) == (other, PROD)
    assert (one["tag"], one["nodeset_due"], two["nodeset_due"]) == ("v2", True, True)
    done = node.run("pack", "example.prod", "-t", "v2", "--force", "--nodeset").stdout
    assert "gn002: netboot" in done
    assert not any(document["nodeset_due"] for document in node.run("status", "--json").document["osimages"])
    # Moved to another osimage of the same files: its boot file has the other's kernel and command line.
    node.reload()
    node.nodes(other, "cn001")
    assert f"Due: nodeset cn001 osimage={other}" in node.run("status").stdout


def test_a_node_moved_by_chdef_keeps_its_old_boot_file(packed: ManagementNode) -> None:
    packed.run("pack", "example.prod", "-t", "v1", "-x", "example.test", "--nodeset")
    packed.run("pack", "example.prod", "-t", "v1", "--force", "--nodeset")
    packed.reload()
    packed.nodes(PROD, "cn009", "cn010")
    assert f"Due: nodeset cn009,cn010 osimage={PROD}" in packed.run("status").stdout
    said = packed.run("pack", "example.prod", "-t", "v1", "--force").stdout
    assert f"Before they reboot: nodeset cn009,cn010 osimage={PROD}" in said
    assert "a reboot is enough" not in said


def test_nodes_behind_a_service_node(packed: ManagementNode) -> None:
    packed.tables["site"]["sharedtftp"] = "0"
    for name in ("cn001", "cn002", "cn003"):
        packed.tables["node"][name].update(servicenode="sn01", xcatmaster="sn01")
    packed.save()
    text = packed.run("pack", "example.prod", "-t", "v2", "--nodeset").stdout
    assert "a reboot is enough" not in text
    for said in (text, packed.run("status").stdout):
        assert "cn001-cn003 boot from service node sn01, which has its own copy of INSTALLDIR and TFTPDIR" in said
        assert f"rsync -auv --exclude autoinst {packed.installdir} sn01:{packed.installdir.parent}" in said
    assert packed.run("status", "--json").document["osimages"][0]["service_nodes"] == {
        "sn01": ["cn001", "cn002", "cn003"]
    }


def test_status_lists_who_was_packed_not_who_shares_a_directory(packed: ManagementNode) -> None:
    """The statelite osimage of a profile has, as xCAT makes it, the rootimgdir of the netboot one."""
    packed.define(
        "rocky9.4-x86_64-statelite-example.prod", **{**packed.tables["osimage"][PROD], "provmethod": "statelite"}
    )
    assert [document["osimage"] for document in packed.run("status", "--json").document["osimages"]] == [PROD]


def test_nodes_say_themselves_what_they_run(packed: ManagementNode) -> None:
    packed.run("pack", "example.prod", "-t", "v2")
    release = "AVS_OSIMAGE='x'\nAVS_TAG='{}'\nAVS_REVISION='2'"
    packed.answer("cn001", *release.format("v1").splitlines())
    packed.answer("cn002", *release.format("v2").splitlines())
    result = packed.run("status", "example.prod", "--live")
    call = packed.calls("xdsh")[0]["argv"]
    assert call[0] == "cn001-cn003"
    assert call[-2:] == ["cat", "/etc/avs-release"]
    assert "-t" in call
    assert "1 of 3 nodes run v1: cn001" in result.stdout
    assert "1 of 3 nodes run v2: cn002" in result.stdout
    assert "1 of 3 nodes did not answer: cn003" in result.stdout
    document = packed.run("status", "example.prod", "--live", "--json").document["osimages"][0]
    assert document["live"] == {"v1": ["cn001"], "v2": ["cn002"], "": ["cn003"]}


def live_with_short_timeout(node: ManagementNode) -> Result:
    script = "from xcat_avs import cli; from xcat_avs.serve import live; live.TIMEOUT = 2.0; cli.main()"
    return node.finish(node.start([sys.executable, "-c", script, "-c", "status", "example.prod", "--live"]))


def test_nodes_that_answered_count_where_xdsh_hangs(packed: ManagementNode) -> None:
    for number in (1, 2):
        packed.answer(f"cn00{number}", "AVS_TAG='v1'")
    packed.knob("xdsh", hang_at_end=True)
    result = live_with_short_timeout(packed)
    assert result.code == 0, str(result)
    assert result.seconds < 12
    assert "2 of 3 nodes run v1: cn001,cn002" in result.stdout
    assert "1 of 3 nodes did not answer: cn003" in result.stdout


def test_a_node_that_runs_something_else_did_answer(packed: ManagementNode) -> None:
    packed.answer("cn001", "AVS_TAG='v1'")
    packed.answer("cn002", "!cat: /etc/avs-release: No such file or directory")
    result = packed.run("status", "example.prod", "--live")
    assert "1 of 3 nodes did not answer: cn003" in result.stdout


@pytest.mark.parametrize("count", [1000])
def test_status_of_a_large_cluster(node: ManagementNode, count: int) -> None:
    """At most 3 s, and what lsdef itself takes."""
    node.nodes(PROD, *(f"node{number:04d}" for number in range(count - 100)))
    node.nodes(TEST, *(f"gpu{number:03d}" for number in range(100)))
    for number in range(200):
        node.tables["osimage"][f"rocky9.4-x86_64-netboot-more{number}"] = {**node.tables["osimage"][PROD], "profile": f"more{number}",
                                                                         "rootimgdir": f"{node.installdir}/netboot/more{number}"}  # fmt: skip
    node.save()
    node.run("pack", "example.prod", "-t", "v1", "-x", "example.test", "--nodeset")
    node.run("pack", "example.prod", "-t", "v1", "--nodeset")
    started = time.monotonic()
    for words in (
        ["-t", "osimage", "-z"],
        ["-t", "node", "-i", "provmethod", "-c"],
        ["-t", "site", "clustersite", "-i", "installdir", "-c"],
    ):
        assert node.program("lsdef", *words).code == 0
    own = time.monotonic() - started
    started = time.monotonic()
    result = node.run("status", "--json", "-V")
    assert time.monotonic() - started - own <= 3
    # One question for each table, and one for the tags of all images.
    assert len(re.findall(r"^\+ \S*lsdef ", result.stderr, re.MULTILINE)) == 3
    assert len(re.findall(r"^\+ svn", result.stderr, re.MULTILINE)) == 1
    one, other = result.document["osimages"]
    assert one["noderange"] == "cn001-cn003,node0000-node0899"
    assert other["noderange"] == "cn009,gpu000-gpu099"
    assert (one["nodeset_due"], other["nodeset_due"]) == (False, False)


def test_the_osimage_that_other_modes_know(node: ManagementNode) -> None:
    """What is packed where, in the list of tags and of one tag."""
    node.run("pack", "example.prod", "-t", "v1", "-x", "example.test")
    node.run("pack", "example.prod", "-t", "v2")
    tags = {tag["name"]: tag["packed"] for tag in node.run("list-tags", "example.prod", "--json").document["tags"]}
    assert tags == {"v1": ["example.test"], "v2": ["example.prod"]}


def test_create_tags_and_packs_in_one_go(fresh: ManagementNode) -> None:
    result = fresh.run("create", "example.prod", "-f", "-x", "example.test", "--nodeset", "-m", "in one go")
    assert f"as {TEST}" in result.stdout
    assert "cn009: netboot rocky9.4-x86_64-example.test" in result.stdout
    assert not os.path.lexists(fresh.served("example.prod"))
    target: Optional[str] = os.readlink(fresh.served("example.test"))
    assert target is not None
    assert target.startswith("example.test.")

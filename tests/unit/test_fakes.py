"""The stand-ins for xCAT's programs answer what the real ones were recorded to answer."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import xcat
from fakes.node import ManagementNode, contents, facts, osimage, unpack

DATA = Path(__file__).resolve().parents[1] / "data"
LSDEF: list[dict[str, Any]] = json.loads((DATA / "lsdef.json").read_text(encoding="utf-8"))
OTHERS: list[dict[str, Any]] = json.loads((DATA / "xcat.json").read_text(encoding="utf-8"))
# What the stand-ins do not do: usage texts, other output forms, other programs, options that avsimage never gives.
UNKNOWN = re.compile(
    r" (-V|-a|-x|-h|--nics|--osimage|--template|--nosuchoption)\b|XCATXML|XCATSHOW|\||chtab|printf|locale|HOME=|runuser|<&-|env "
)
LEFT_OUT = {
    "lsdef-several-space", "lsdef-c-only", "lsdef-notype", "fail-root-nocert", "env-badlocale", "genimage-legacy-opts", "genimage-bothforms",
    "genimage-badopt", "nodeset-V", "nodeset-nohosts", "nodeset-offline", "lsdef-badopt",
}  # fmt: skip
RECORDS = [record for record in LSDEF + OTHERS if record["name"] not in LEFT_OUT and not UNKNOWN.search(record["cmd"])]
KEYS = "Error: /install/postscripts/hostkeys", "Error: /etc/xcat/hostkeys", "Error: /install/postscripts/_ssh"
MORE_NODE = {"bmc": "10.1.0.250", "bmcpassword": "secret", "bmcusername": "ADMIN", "mgt": "ipmi", "netboot": "xnba",
             "postbootscripts": "otherpkgs", "postscripts": "syslog,remoteshell,syncfiles", "arch": "x86_64", "groups": "compute,all"}  # fmt: skip


def stanza(name: str) -> dict[str, dict[str, str]]:
    """The objects of a recorded stanza output."""
    text = next(record for record in LSDEF if record["name"] == name)["stdout"]
    found = {}
    for block in re.split(r"\n\n", text)[1:]:
        header, *lines = block.strip("\n").split("\n")
        found[header.rstrip(":")] = {
            key.strip(): value for key, _, value in (line.partition("=") for line in lines[1:])
        }
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagementNode]:
    """The tables as they were when the runs were recorded, in directories of our own."""
    made = ManagementNode(tmp_path_factory.mktemp("mgmt"))
    yield made
    assert made.close() == []


def tables(made: ManagementNode, record: dict[str, Any]) -> None:
    """Put the tables into the state that they were in for a recorded run."""
    here = {"/install": str(made.installdir), "/opt/xcat": str(made.root)}
    images = stanza("lsdef-z-all")
    if "special" in record["cmd"] + record["name"]:
        images["special"] = {
            **stanza("special-z")["special"],
            "osupdatename": "unicode \u00e9 \u00fc \u6f22\u5b57 \u2603",
        }
    for values in images.values():
        for key, value in values.items():
            values[key] = re.sub(r"(?<![\w.])(/install|/opt/xcat)(?=/)", lambda match: here[match.group()], value)
        for key in ("pkglist", "otherpkglist", "postinstall"):
            for item in filter(None, values.get(key, "").split(",")):
                path = Path(item)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    rocky, classic = "rocky9.4-x86_64-netboot-compute", "SL6.3-x86_64-netboot-example.prod"
    if record["name"] == "genimage-SL-dryrun":
        images["SL6.3-x86_64-netboot-example.test"].update(osvers="SL6.3", osarch="x86_64", profile="example.test")
    nodes = {}
    for number, (provmethod, osvers, profile) in enumerate(
        [(rocky, "rocky9.4", "compute"), (rocky, "rocky9.4", "compute"), (classic, "SL6.3", "example.prod"),
         ("netboot", "SL6.3", "example.test")], 1,
    ):  # fmt: skip
        nodes[f"cn00{number}"] = {**MORE_NODE, "ip": f"10.0.0.{number}", "mac": f"52:54:00:00:00:0{number}", "os": osvers,
                                  "profile": profile, "provmethod": provmethod}  # fmt: skip
    nodes["login1"] = {"groups": "login,all"}
    ubuntu = "ubuntu22.04-x86_64-netboot-compute"
    if record["name"] in ("nodeset-ok-range", "nodeset-ok-stat", "nodeset-osimage-alone-ok", "nodeset-ok-db", "nodeset-noupdateinitrd",
                          "nodeset-mixed", "lsdef-node-group"):  # fmt: skip
        top = Path(images[ubuntu]["rootimgdir"])
        top.mkdir(parents=True, exist_ok=True)
        for name in ("kernel", "initrd-stateless.gz", "rootimg.cpio.gz"):
            (top / name).touch()
        for name in ("cn001", "cn002"):
            nodes[name].update(currstate="netboot ubuntu22.04-x86_64-compute", os="ubuntu22.04", provmethod=ubuntu)
        if record["name"] == "lsdef-node-group":
            nodes["cn002"]["provmethod"] = ""
    made.tables["osimage"], made.tables["node"] = images, nodes
    made.knobs = {
        "daemon": "down" if record["name"].startswith("down-") else "badhost" if "badhost" in record["name"] else "up"
    }
    made.knobs["noise"] = record["name"] == "special-bypass"
    made.save()


def normal(text: str, made: ManagementNode) -> str:
    """Names of places as they were on the recorded node; its missing host keys left out."""
    for own, theirs in ((made.installdir, "/install"), (made.tftpdir, "/tftpboot"), (made.root, "/opt/xcat")):
        text = text.replace(str(own), theirs)
    return "".join(line + "\n" for line in text.split("\n")[:-1] if not line.startswith(KEYS)) + text.split("\n")[-1]


def test_enough_of_it_is_replayed() -> None:
    counted = [sum(record["cmd"].split()[-1] is not None and program in record["cmd"] for record in RECORDS)
               for program in ("lsdef", "genimage", "packimage", "nodeset")]  # fmt: skip
    assert counted[0] >= 40
    assert min(counted[1:]) >= 10
    assert len(RECORDS) >= 100


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_recorded_run(record: dict[str, Any], node: ManagementNode) -> None:
    tables(node, record)
    words = shlex.split(record["cmd"])
    environment = {}
    while re.match(r"[A-Z_]+=", words[0]):
        key, _, value = words.pop(0).partition("=")
        environment[key] = value
    done = node.program(words[0], *words[1:], **environment)
    assert normal(done.stderr, node) == normal(record["stderr"], node)
    assert normal(done.stdout, node) == normal(record["stdout"], node)
    assert done.code == record["exit"]


def test_lsdef_hangs_on_an_open_pipe(node: ManagementNode) -> None:
    with subprocess.Popen(
        [str(node.root / "bin/lsdef"), "-t", "osimage"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=node.environment,
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("knobs", "bypass", "code", "stdout", "stderr"),
    [
        ({"daemon": "badcert"}, "", 255, "Verify that the xcatd daemon", "certificate verify failed"),
        ({"daemon": "foreigncert"}, "", 1, "", "seems to have been ended prematurely\n"),
        ({"daemon": "denied"}, "", 1, "", "Error: Permission denied for request\n"),
        ({"daemon": "nocert"}, "", 1, "warning: the client certificates under", "Error: Permission denied for request\n"),
        ({"user": "xcatlab"}, "1", 0, "WARNING: Only allow root to run XCATBYPASS mode, your current user ID is xcatlab.\n", ""),
    ],
)  # fmt: skip
def test_what_else_a_client_says(
    node: ManagementNode, knobs: dict[str, Any], bypass: str, code: int, stdout: str, stderr: str
) -> None:
    node.knobs = knobs
    node.save()
    done = node.program("lsdef", "-t", "osimage", XCATBYPASS=bypass)
    assert done.code == code
    assert stdout in done.stdout
    assert stderr in done.stderr


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ManagementNode]:
    made = ManagementNode(tmp_path)
    made.image()
    yield made
    assert made.close() == []


BYPASS = {"XCATBYPASS": "1"}


def test_genimage_writes_where_nodes_load_from_and_into_the_tables(own: ManagementNode) -> None:
    own.define(osimage("example.prod"), permission="", pkgdir="")
    done = own.program("genimage", osimage("example.prod"), **BYPASS)
    assert done.code == 0, str(done)
    top = own.served()
    assert sorted(path.name for path in top.iterdir()) == [
        "initrd-stateless.gz",
        "initrd-statelite.gz",
        "kernel",
        "rootimg",
    ]
    assert {oct(path.stat().st_mode & 0o777) for path in top.glob("initrd-*")} == {"0o600"}
    for name in ("kernel", "initrd-stateless.gz", "initrd-statelite.gz"):
        assert (own.tftp() / name).read_bytes() == (top / name).read_bytes()
    assert (top / "rootimg/dev/shm/of-the-host").exists()
    assert (top / "rootimg/run/of-the-host.pid").exists()
    own.reload()
    assert own.tables["osimage"][osimage("example.prod")]["permission"] == "755"


def test_the_programs_do_nothing_in_the_daemons_place(own: ManagementNode) -> None:
    for program in ("genimage", "packimage"):
        done = own.program(program, osimage("example.prod"))
        assert done.code == 99
        assert "without XCATBYPASS" in done.stderr
    assert not own.served().exists()


def test_a_lock_that_is_held(own: ManagementNode) -> None:
    own.program("genimage", osimage("example.prod"), **BYPASS)
    real = str(own.served() / "rootimg")
    path = xcat.LOCKS / f"{real.replace('/', '.')}.{hashlib.md5(real.encode()).hexdigest()}"
    text = f'failed to acquire lock, seems there is another genimage/packimage/rmimage process 4711 running on root image dir "{real}"\n'
    with open(path, "w") as stream:
        stream.write("4711")
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        packed = own.program("packimage", osimage("example.prod"), **BYPASS)
        built = own.program("genimage", osimage("example.prod"), **BYPASS)
    assert (packed.code, packed.stderr) == (1, f"Error: {text}")
    assert built.code == 1
    assert text in built.stdout
    assert built.stderr.endswith("Error: genimage command failed with rc 1.\n")


def test_the_lock_of_a_directory_whose_parent_is_missing(own: ManagementNode) -> None:
    """Its path resolves to nothing, and so all such share one; genimage of EL makes its directory before it takes one."""
    real = str(own.served() / "rootimg")
    mine = xcat.LOCKS / f"{real.replace('/', '.')}.{hashlib.md5(real.encode()).hexdigest()}"
    own.program("packimage", osimage("example.prod"), **BYPASS)
    assert (xcat.LOCKS / ".d41d8cd98f00b204e9800998ecf8427e").exists()
    assert not mine.exists()
    own.program("genimage", osimage("example.prod"), **BYPASS)
    assert mine.exists()


def test_what_is_set_while_genimage_builds_goes_under(own: ManagementNode) -> None:
    name = osimage("example.prod")
    old = own.tables["osimage"][name]["pkgdir"]
    own.knob("genimage", meanwhile={"pkgdir": "/install/newer"}, daemon="down")
    assert own.program("genimage", name, **BYPASS).code == 0
    own.reload()
    assert own.tables["osimage"][name]["pkgdir"] == old
    assert own.program("lsdef", "-t", "osimage").code == 111


def test_packimage_edits_the_tree_and_leaves_out_what_it_was_told(own: ManagementNode, tmp_path: Path) -> None:
    name = osimage("example.prod")
    (tmp_path / "exlist").write_text(
        "./usr/share/doc* # no documentation\n+./usr/share/doc/bash/README\n#INCLUDE:more#\n"
    )
    (tmp_path / "more").write_text("./var/log/*\n")
    (tmp_path / "synced").write_text("synced")
    (tmp_path / "synclist").write_text(f"{tmp_path}/synced -> /etc/synced\n/nonexistent -> /etc/x\n")
    own.define(name, exlist=f"{tmp_path}/exlist,/nonexistent", synclists=str(tmp_path / "synclist"))
    own.program("genimage", name, **BYPASS)
    (own.served() / "rootimg.tar.gz").touch()
    done = own.program("packimage", name, **BYPASS)
    assert done.code == 0, str(done)
    assert done.stdout == f"Packing contents of {own.served()}/rootimg\narchive method:cpio\ncompress method:pigz\n\n"
    assert [path.name for path in own.served().glob("rootimg.*")] == ["rootimg.cpio.gz"]
    assert (own.served() / "rootimg.cpio.gz").stat().st_mode & 0o777 == 0o644
    root = unpack(own.served() / "rootimg.cpio.gz", tmp_path / "unpacked")
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert {
        "etc/synced",
        "xcatpost/xcatdsklspost",
        "opt/xcat/xcatdsklspost",
        "usr/share/doc/bash/README",
        "etc/localtime",
    } <= found
    assert not {"etc/init.d/statelite", ".statelite", "var/log/messages", "etc/x"} & found
    assert (root / "etc/shadow").read_text().startswith("root:$6$salt$hash:13880:0:99999:7:::\ndaemon:")
    info = facts((root / "opt/xcat/xcatinfo").read_text())
    assert info["IMAGENAME"] == name
    assert set(info) == {"IMAGENAME", "IMAGEUUID", "TIMESTAMP"}


def test_packimage_hides_what_its_pipe_did_wrong(own: ManagementNode, tmp_path: Path) -> None:
    own.tables["passwd"] = ""
    own.knob("packimage", drop=["./usr/bin/true"])
    own.program("genimage", osimage("example.prod"), **BYPASS)
    (own.served() / "rootimg/srv").mkdir()
    (own.served() / "rootimg/srv/new\nline").touch()
    done = own.program("packimage", osimage("example.prod"), **BYPASS)
    assert done.code == 0, str(done)
    root = unpack(own.served() / "rootimg.cpio.gz", tmp_path / "unpacked")
    assert list((root / "srv").iterdir()) == []
    assert not (root / "usr/bin/true").exists()
    assert "root:cluster:" in (root / "etc/shadow").read_text()
    tar = own.program("packimage", "-m", "tar", osimage("example.prod"), **BYPASS)
    assert tar.code == 1
    assert "Error: packimage failed while running: \n cat " in tar.stderr
    assert oct((own.served() / "rootimg.tar.gz").stat().st_mode & 0o777) == "0o600"


def test_packimage_writes_for_all_to_see(own: ManagementNode) -> None:
    own.program("genimage", osimage("example.prod"), **BYPASS)
    own.knob("packimage", delay=1)
    assert own.program("packimage", osimage("example.prod"), **BYPASS).code == 0
    process = own.start([str(own.root / "sbin/packimage"), osimage("example.prod")], **BYPASS)
    seen = set()
    while process.poll() is None:
        try:
            status = (own.served() / "rootimg.cpio.gz").stat()
            seen.add((status.st_mode & 0o777, status.st_size > 100_000))
        except FileNotFoundError:
            seen.add((0, False))
        time.sleep(0.005)
    assert (0o600, False) in seen
    assert (0o644, True) in seen


def test_packimage_packs_nothing_at_all_and_ends_well(own: ManagementNode, tmp_path: Path) -> None:
    own.served().mkdir(parents=True)  # or its lock would be one that other tests hold
    done = own.program("packimage", osimage("example.prod"), **BYPASS)
    assert done.code == 0
    found = contents(unpack(own.served() / "rootimg.cpio.gz", tmp_path / "unpacked"))
    assert not any(path.endswith("etc/passwd") for path in found)


def test_nodeset_copies_the_kernel_and_fails_by_node(own: ManagementNode) -> None:
    name = osimage("example.prod")
    own.nodes(name, "cn001", "cn002")
    for program in ("genimage", "packimage"):
        own.program(program, name, **BYPASS)
    (own.tftp() / "kernel").unlink()
    own.knob("nodeset", fail={"cn002": "no mac address"})
    done = own.program("nodeset", "cn001-cn002", f"osimage={name}")
    assert done.code == 1
    assert done.stdout == "cn001: netboot rocky9.4-x86_64-example.prod\n"
    assert "cn002: [mgmt]: Error: no mac address\n" in done.stderr
    assert (own.tftp() / "kernel").exists()
    boot = (own.tftpdir / "xcat/xnba/nodes/cn001").read_text()
    assert f"imgurl=http://mgmt:80/{own.served()}/rootimg.cpio.gz " in boot


def test_xdsh_answers_by_node(own: ManagementNode) -> None:
    own.nodes(osimage("example.prod"), "cn001", "cn002")
    own.answer("cn001", "AVS_TAG='v1'", "second")
    done = own.program("xdsh", "cn001,cn002", "-t", "10", "cat", "/etc/avs-release")
    assert done.code == 1
    assert done.stdout == "cn001: AVS_TAG='v1'\ncn001: second\n"
    assert done.stderr.startswith("cn002: ")

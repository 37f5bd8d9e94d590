"""What lsdef answers: every recorded run of a real one through the parser, and what was not recorded."""

from __future__ import annotations

import json
import re
import shlex
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.definitions import tables
from xcat_avs.definitions.osimage import resolve
from xcat_avs.definitions.protocol import Node
from xcat_avs.definitions.tables import XcatDefinitions
from xcat_avs.errors import AvsError

DATA = Path(__file__).resolve().parents[1] / "data/lsdef.json"
RECORDED: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))
STANZA = "# <xCAT data object stanza file>\n"
NOISE = "Error loading module /opt/xcat/lib/perl/xCAT_plugin/kvm.pm  ...skipping\n"
EMPTY = "Could not find any object definitions to display.\n"  # of a new xCAT


def one(pattern: str) -> dict[str, Any]:
    return next(record for record in RECORDED if record["name"] == pattern)


def program(directory: Path, stdout: str, stderr: str = "", code: int = 0, before: str = "") -> str:
    """An lsdef that gives these answers, byte for byte."""
    path = directory / "lsdef"
    for name, text in (("out", stdout), ("err", stderr)):
        (directory / name).write_text(text, encoding="utf-8")
    quoted = shlex.quote(str(directory))
    path.write_text(f"#!/bin/sh\n{before}\ncat {quoted}/out; cat {quoted}/err >&2; exit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def image(name: str, **attributes: str) -> str:
    lines = "".join(f"    {key}={value}\n" for key, value in attributes.items())
    return f"\n{name}:\n    objtype=osimage\n{lines}"


def test_as_many_runs_were_recorded_as_are_replayed() -> None:
    assert len(RECORDED) >= 115
    assert sum(record["parse"] is None for record in RECORDED) > 70
    assert sum(bool(record["parse"]) for record in RECORDED) == 4
    assert sum(record["parse"] == [] for record in RECORDED) == 22


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["name"])
def test_recorded_output_is_read_or_refused(record: dict[str, Any]) -> None:
    """Stanzas are read; sentences that say that there is nothing are nothing; all else is no definition."""
    if record["parse"] is None:
        with pytest.raises(AvsError, match="lsdef"):
            tables.parse(record["stdout"])
    else:
        assert sorted(tables.parse(record["stdout"])) == sorted(record["parse"])
    assert tables.parse_compact(record["stdout"]) == record["compact"]


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["name"])
def test_recorded_runs_succeed_or_fail_for_their_own_reason(record: dict[str, Any], tmp_path: Path) -> None:
    stub = program(tmp_path, record["stdout"], record["stderr"], record["exit"])
    if not record["lsdef"]:
        answer = tables.lsdef(stub, "-t", "osimage")
        assert record["stdout"].removesuffix(answer) in ("", NOISE)
        return
    with pytest.raises(AvsError) as err:
        tables.lsdef(stub, "-t", "osimage")
    assert re.search(record["lsdef"], str(err.value))
    assert "no osimage" not in str(err.value)


def test_every_value_of_a_recorded_stanza() -> None:
    text = one("lsdef-z-all")["stdout"]
    found = tables.parse(text)
    assert len(found) == 14
    wanted = dict(re.findall(r"^    ([a-z]+)=(.*)$", text.split("\nbaredistro:\n")[1].split("\n\n")[0], re.MULTILINE))
    assert {"objtype": "osimage", **found["baredistro"].attributes} == wanted
    assert found["norootimgdir"].rootimgdir(Path("/srv/i")) == Path("/srv/i/netboot/rocky9.4/x86_64/norootimgdir")
    assert {image_.origin for image_ in found.values()} == {"the xCAT tables"}
    assert not any(image_.damaged for image_ in found.values())


def test_values_are_raw() -> None:
    """Quotes, dollars, a tab, `=`, spaces at the end, five thousand characters: as they were printed."""
    attributes = tables.parse(one("special-z")["stdout"])["special"].attributes
    assert attributes["addkcmdline"] == "quiet \"double\" 'single' $HOME `id` \\back"
    assert attributes["kerneldir"] == "leading and trailing  "
    assert attributes["krpmver"] == "tab\there"
    assert attributes["usercomment"] == "a=b c==d"
    assert len(attributes["dump"]) == 5000
    compact = tables.parse_compact(one("special-i-c")["stdout"])["special"]
    assert {key: attributes.get(key, "") for key in compact} == compact


def test_a_classic_image_is_found_by_its_profile() -> None:
    found = resolve(tables.parse(one("lsdef-z-all")["stdout"]), "example.prod")
    assert (found.name, found.osvers, found.osarch) == ("SL6.3-x86_64-netboot-example.prod", "SL6.3", "x86_64")


def test_images_of_other_methods_are_not_taken_for_a_profile() -> None:
    images = tables.parse(one("lsdef-z-all")["stdout"])
    with pytest.raises(AvsError, match="means 6 osimages"):
        resolve(images, "compute")
    assert resolve(images, "compute", "rocky9.4").name == "rocky9.4-x86_64-netboot-compute"


@pytest.mark.parametrize("sentence", [EMPTY, "No object definitions have been found\n", f"{STANZA}"])
def test_an_empty_table_holds_nothing(sentence: str) -> None:
    assert tables.parse(sentence) == {}


@pytest.mark.parametrize(
    "garbage",
    [
        "", "\n\n", "<html><body>502 Bad Gateway</body></html>\n", "Object name: a\n    osvers=rocky9.4\n", "a  (osimage)\n", "\0\1\2\n",
        f"{STANZA}    osvers=rocky9.4\n", f"{STANZA}\nneither this nor that\n", f"a sentence\n{EMPTY}",
    ],
)  # fmt: skip
def test_garbage_is_an_error(garbage: str) -> None:
    with pytest.raises(AvsError, match="lsdef -t osimage -z"):
        tables.parse(garbage)


def test_other_objects_are_passed_over() -> None:
    text = f"{STANZA}\ncn001:\n    objtype=node\n    os=rocky9.4\n{image('a', osvers='rocky9.4')}"
    assert list(tables.parse(text)) == ["a"]


GOOD = {"osarch": "x86_64", "osvers": "rocky9.4", "profile": "good", "provmethod": "netboot"}


@pytest.mark.parametrize(
    "value",
    [
        "x\nthe rest of it", "x\n", "x\n\n", "x\n    profile=other", "x\n  indented less=1", "x\nother:", "x\nrocky9.4-x86_64-netboot-good:",
        "x\n    objtype=osimage", "x\n\nother:\n    osarch=x86_64", "x\n    osarch=aarch64\n    osvers=rocky8",
    ],
)  # fmt: skip
def test_a_newline_in_a_value_spoils_that_image_alone(value: str) -> None:
    """Whatever the rest of the value looks like: an attribute, a header, another object."""
    good, bad = "rocky9.4-x86_64-netboot-good", "rocky9.4-x86_64-netboot-bad"
    attributes = {"otherifce": value, "pkglist": "/p", **GOOD, "profile": "bad", "rootimgdir": "/r"}
    text = STANZA + image(bad, **dict(sorted(attributes.items()))) + image(good, **GOOD)  # lsdef sorts, too
    found = tables.parse(text)
    assert found[good].check().profile == "good"
    assert dict(found[good].attributes) == GOOD
    with pytest.raises(AvsError, match=r"cannot be trusted.*newline"):
        found[bad].check()


def test_a_line_break_that_is_no_newline_is_a_part_of_the_value() -> None:
    found = tables.parse(STANZA + image("a", description="one\x0btwo\x0cthree\u2028four\rfive"))
    assert found["a"].attributes["description"] == "one\x0btwo\x0cthree\u2028four\rfive"
    compact = tables.parse_compact("cn001: provmethod=one\x0bcn002: provmethod=two\n")
    assert list(compact) == ["cn001"]


@pytest.mark.parametrize(
    "words",
    ["Permission denied for request", "certificate verify failed", "Unable to open socket connection", "Only allow root to run XCATBYPASS"],
)  # fmt: skip
def test_what_an_admin_wrote_into_a_description_is_no_error(words: str, tmp_path: Path) -> None:
    """Only what lsdef itself says counts, not what is in the tables that it prints."""
    text = STANZA + image("a", description=f"fails with: {words}")
    assert tables.lsdef(program(tmp_path, text), "-t", "osimage", "-z") == text


def test_a_hanging_lsdef_is_ended_and_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(AvsError, match=r"xCAT does not answer: .* did not end within 0\.3 s"):
        tables.lsdef(program(tmp_path, "", before="sleep 600"), "-t", "osimage")
    assert time.monotonic() - started < 15


def test_lsdef_gets_the_end_of_its_input_at_once(tmp_path: Path) -> None:
    assert tables.lsdef(program(tmp_path, "x\n", before="cat >/dev/null")) == "x\n"


def test_a_killed_lsdef_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AvsError, match="was killed by SIGKILL"):
        tables.lsdef(program(tmp_path, "", before="kill -9 $$"))


def test_lsdef_that_is_no_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AvsError):
        tables.lsdef(str(tmp_path / "lsdef"))


def answering(directory: Path, **answers: str) -> XcatDefinitions:
    """An lsdef that answers by the type it is asked for, and writes down each question."""
    for kind, text in answers.items():
        (directory / kind).write_text(text)
    path = directory / "lsdef"
    quoted = shlex.quote(str(directory))
    path.write_text(f'#!/bin/sh\necho "$*" >>{quoted}/asked\ncat {quoted}/"$2"\n')
    path.chmod(0o755)
    return XcatDefinitions(str(path))


def test_each_table_is_asked_for_once_and_never_by_name(tmp_path: Path) -> None:
    site = "clustersite: installdir=/srv/install\nclustersite: tftpdir=/srv/tftp\n"
    nodes = one("lsdef-node-i-c")["stdout"]
    definitions = answering(tmp_path, osimage=one("lsdef-z-all")["stdout"], site=site, node=nodes)
    for _ in range(3):
        assert len(definitions.osimages()) == 14
        assert (definitions.installdir, definitions.tftpdir) == (Path("/srv/install"), Path("/srv/tftp"))
    assert definitions.nodes()["cn003"] == Node("SL6.3-x86_64-netboot-example.prod")
    assert definitions.nodes()["login1"] == Node()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked.count("-t osimage -z") == 1
    assert sum("site" in line for line in asked) == 1
    assert all("bmcpassword" not in line and " -V" not in line for line in asked)
    definitions.reload()
    definitions.osimages()
    assert (tmp_path / "asked").read_text().splitlines().count("-t osimage -z") == 2


def test_what_the_site_table_does_not_say_has_xcats_defaults(tmp_path: Path) -> None:
    definitions = answering(tmp_path, site="No object definitions have been found\n")
    assert (definitions.installdir, definitions.tftpdir) == (Path("/install"), Path("/tftpboot"))
    own = XcatDefinitions("/nonexistent/lsdef", "/a", "/b")
    assert (own.installdir, own.tftpdir) == (Path("/a"), Path("/b"))


def test_who_boots_from_a_service_node_with_copies(tmp_path: Path) -> None:
    """By servicenode; by xcatmaster only where that is a node, and not the management node. What they mount is no copy."""
    values = {
        "cn001": {"servicenode": "sn01,sn02", "netboot": "xnba"}, "cn002": {"xcatmaster": "sn01"}, "cn003": {"xcatmaster": "10.0.0.1"},
        "cn004": {"xcatmaster": "mgmt"}, "cn005": {"servicenode": "mgmt"}, "mgmt": {}, "sn01": {},
    }  # fmt: skip
    nodes = "".join(
        f"{node}: {key}={value}\n"
        for node, keys in values.items()
        for key, value in {"provmethod": "x", **keys}.items()
    )
    both = ("INSTALLDIR", "TFTPDIR")
    for site, copies in (("sharedtftp=0", both), ("sharedtftp=NO", both), ("sharedtftp=1", both[:1]), ("installloc=", both[:1]),
                         ("installloc=/install", ()), ("installloc=/install\nclustersite: sharedtftp=no", both[1:])):  # fmt: skip
        found = answering(tmp_path, node=nodes, site=f"clustersite: master=mgmt\nclustersite: {site}\n").nodes()
        assert {name: node.service for name, node in found.items() if node.service} == (
            {"cn001": "sn01,sn02", "cn002": "sn01"} if copies else {}
        )
        assert {node.copies for node in found.values() if node.service} == ({copies} if copies else set())
    assert found["cn001"].netboot == "xnba"


def test_tables_are_asked_for_side_by_side(tmp_path: Path) -> None:
    """None waits for another; each is judged where it is used."""
    path = tmp_path / "lsdef"
    path.write_text(f'#!/bin/sh\ntouch {tmp_path}/"$2"\nfor n in 1 2 3 4 5 6 7 8 9; do\n'
                    f'[ -e {tmp_path}/osimage ] && [ -e {tmp_path}/site ] && [ -e {tmp_path}/node ] && break\nsleep 1\ndone\n'
                    '[ "$2" = osimage ] && exit 3\n[ "$2" = site ] && echo "clustersite: installdir=/i"\nexit 0\n')  # fmt: skip
    path.chmod(0o755)
    definitions = XcatDefinitions(str(path), together=("osimage", "site", "node"))
    started = time.monotonic()
    assert definitions.installdir == Path("/i")
    assert definitions.nodes() == {}
    assert time.monotonic() - started < 8
    with pytest.raises(AvsError, match="exit code 3"):
        definitions.osimages()


def test_what_cannot_be_read_again_is_what_it_was(tmp_path: Path) -> None:
    definitions = answering(tmp_path, osimage=STANZA + image("a", osvers="rocky9.4"))
    assert list(definitions.osimages()) == ["a"]
    (tmp_path / "osimage").unlink()
    with pytest.raises(AvsError):
        definitions.reload()
    assert list(definitions.osimages()) == ["a"]


def test_what_is_read_without_the_daemon_is_what_the_daemon_says(tmp_path: Path) -> None:
    definitions = answering(tmp_path, osimage=STANZA + image("a", description="h\u00e9"))
    definitions.reload(bypass=True)
    assert definitions.osimages()["a"].attributes["description"] == "h??"


@pytest.mark.parametrize(
    ("said", "code", "uid", "words"),
    [
        ("ERROR/WARNING: communication with the xCAT server seems to have been ended prematurely", 1, 0,
         r"refuses the certificate that root has.*setup-local-client\.sh"),
        ("Error: Permission denied for request", 1, 0, r"does not let root read.*tabdump policy"),
        ("Error: Permission denied for request", 1, 1000, r"does not let this user read.*run as root"),
    ],
)  # fmt: skip
def test_who_may_not_ask(
    said: str, code: int, uid: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    with pytest.raises(AvsError, match=words) as err:
        tables.lsdef(program(tmp_path, "", f"{said}\n", code), "-t", "osimage")
    assert uid or "run as root" not in str(err.value)


def test_no_nodes_are_no_nodes(tmp_path: Path) -> None:
    assert answering(tmp_path, node=EMPTY, site=EMPTY).nodes() == {}

"""Stanza files: what `lsdef -t osimage -z` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from xcat_avs.definitions.stanza import StanzaDefinitions, parse
from xcat_avs.errors import AvsError

ONE = """# <xCAT data object stanza file>

rocky9.4-x86_64-netboot-compute:
    objtype=osimage
    exlist=/opt/xcat/share/xcat/netboot/rocky/compute.rocky9.x86_64.exlist
    imagetype=linux
    osarch=x86_64
    osname=Linux
    osvers=rocky9.4
    otherpkgdir=/install/post/otherpkgs/rocky9.4/x86_64
    otherpkglist=/install/custom/netboot/rocky/compute.otherpkgs.pkglist
    permission=755
    pkgdir=/install/rocky9.4/x86_64
    pkglist=/install/custom/netboot/rocky/compute.rocky9.4.pkglist
    postbootscripts=confignetwork,mypostboot
    postscripts=setupntp
    profile=compute
    provmethod=netboot
    rootimgdir=/install/netboot/rocky9.4/x86_64/compute
    synclists=/install/custom/netboot/rocky/compute.synclist

"""
# Several: an image without osvers, osarch and profile, one to install, one that lists two files, one that lists a mirror.
SEVERAL = """# <xCAT data object stanza file>

SL6.3-x86_64-netboot-example.prod:
    objtype=osimage
    imagetype=linux
    pkglist=/install/custom/netboot/SL6.3/example.prod.pkglist
    provmethod=netboot
    rootimgdir=/install/netboot/SL6.3/x86_64/example.prod

baredistro:
    objtype=osimage
    imagetype=linux
    osarch=x86_64
    osvers=plan9
    profile=compute
    provmethod=netboot
    rootimgdir=/install/netboot/plan9

rhels8.10.0-x86_64-netboot-gpu:
    objtype=osimage
    osarch=x86_64
    osvers=rhels8.10.0
    otherpkglist=/install/custom/netboot/rh/cuda.otherpkgs.pkglist,/install/custom/netboot/rh/slurm.otherpkgs.pkglist
    pkglist=/install/custom/netboot/rh/gpu.rhels8.10.0.pkglist
    profile=gpu
    provmethod=netboot

rocky9.4-x86_64-install-compute:
    objtype=osimage
    osarch=x86_64
    osvers=rocky9.4
    profile=compute
    provmethod=install
    template=/opt/xcat/share/xcat/install/rocky/compute.rocky9.tmpl

ubuntu22.04-x86_64-netboot-compute:
    objtype=osimage
    osarch=x86_64
    osvers=ubuntu22.04
    pkgdir=http://mirror.example/ubuntu jammy main,/install/ubuntu22.04/x86_64
    profile=compute
    provmethod=netboot

"""
SPECIAL = r"""# <xCAT data object stanza file>

special:
    objtype=osimage
    addkcmdline=quiet "double" 'single' $HOME `id` \back
    description=two words  double  spaces
    dump=DUMP
    environvar=A=1,B=two words
    groups=
    krpmver=tab	here
    netdrivers=mlx5_core & "amp" &amp; ]]>
    osupdatename=unicode ?? ü #hash
    otherpkgdir=/a,/b ,/c
    usercomment=a=b c==d

""".replace("DUMP", "x" * 1000)


def test_one() -> None:
    image = parse(ONE, "one.stanza")["rocky9.4-x86_64-netboot-compute"]
    assert image.origin == "one.stanza, line 3"
    assert len(image.attributes) == 16
    assert "objtype" not in image.attributes
    assert image.attributes["postbootscripts"] == "confignetwork,mypostboot"
    assert (image.osvers, image.osarch, image.profile) == ("rocky9.4", "x86_64", "compute")


def test_several() -> None:
    images = parse(SEVERAL, "all.stanza")
    assert list(images) == [
        "SL6.3-x86_64-netboot-example.prod", "baredistro", "rhels8.10.0-x86_64-netboot-gpu",
        "rocky9.4-x86_64-install-compute", "ubuntu22.04-x86_64-netboot-compute",
    ]  # fmt: skip
    assert images["SL6.3-x86_64-netboot-example.prod"].profile == "example.prod"
    assert len(images["rhels8.10.0-x86_64-netboot-gpu"].paths("otherpkglist")) == 2
    assert (
        images["ubuntu22.04-x86_64-netboot-compute"]
        .attributes["pkgdir"]
        .startswith("http://mirror.example/ubuntu jammy")
    )
    assert images["baredistro"].origin == "all.stanza, line 10"


def test_values_are_raw() -> None:
    attributes = parse(SPECIAL, "x")["special"].attributes
    assert attributes["addkcmdline"] == "quiet \"double\" 'single' $HOME `id` \\back"
    assert attributes["description"] == "two words  double  spaces"
    assert len(attributes["dump"]) == 1000
    assert attributes["environvar"] == "A=1,B=two words"
    assert attributes["groups"] == ""
    assert attributes["krpmver"] == "tab\there"
    assert attributes["osupdatename"] == "unicode ?? ü #hash"
    assert attributes["usercomment"] == "a=b c==d"


@pytest.mark.parametrize("text", [ONE, SEVERAL, SPECIAL])
def test_what_is_written_is_read_again(text: str) -> None:
    images = parse(text, "x")
    again = parse("\n".join(image.stanza() for image in images.values()), "y")
    assert {name: image.attributes for name, image in again.items()} == {
        name: image.attributes for name, image in images.items()
    }


def test_other_objects_are_passed_over() -> None:
    text = "cn001:\n    objtype=node\n    groups=all\n\nimg:\n    objtype=osimage\n    profile=p\n"
    assert list(parse(text, "x")) == ["img"]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_line_ends_and_comments(end: str) -> None:
    text = end.join(["  # indented comment", "a:  ", "# in between", "   objtype = osimage", "\tprofile=p   ", ""])
    assert parse(text, "x")["a"].attributes == {"profile": "p"}


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_nothing(text: str) -> None:
    assert parse(text, "x") == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("img:\n    objtype=osimage\n    what is this\n", 3, ["'what is this'", "neither NAME: nor ATTRIBUTE=VALUE"]),
        ("    profile=p\n", 1, ["before the first NAME:"]),
        ("a:\n    objtype=osimage\na:\n    objtype=osimage\n", 3, ["'a' is defined a second time", "line 1"]),
        ("a:\n    objtype=osimage\n    profile=p\n    profile=q\n", 4, ["'a' sets 'profile' a second time"]),
        ("b:\n    profile=p\n", 1, ["'b' has no objtype="]),
        ("a:\n    objtype=osimage\nb:\n", 3, ["'b' has no objtype="]),
        ("a:\n    objtype=osimage\n    1st=x\n", 3, ["1st=x"]),
        ("a:\n    objtype=osimage\n    =x\n", 3, ["'=x'"]),
        ("a:\n    objtype=osimage\n    pro\0file=x\n", 3, ["NUL"]),
        ("a:\n    objtype=osimage\n    b:\n", 3, ["'b:'"]),
        ("<html>\n", 1, ["<html>"]),
    ],
)
def test_bad_stanzas_are_refused_with_file_and_line(text: str, line: int, words: list[str]) -> None:
    with pytest.raises(AvsError) as caught:
        parse(text, "bad.stanza")
    assert str(caught.value).startswith(f"bad.stanza, line {line}: ")
    for word in words:
        assert word in str(caught.value)


def definitions(path: Path) -> StanzaDefinitions:
    return StanzaDefinitions(path, Path("/install"), Path("/tftpboot"))


def test_a_directory_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.stanza").write_text(ONE)
    (tmp_path / "b.stanza").write_text(SEVERAL)
    (tmp_path / "b.stanza~").write_text("rubbish\n")
    found = definitions(tmp_path)
    assert len(found.osimages()) == 6
    assert str(tmp_path) in found.describe()
    (tmp_path / "c.stanza").write_text(ONE)
    with pytest.raises(AvsError, match=r"c\.stanza, line 3: .* is defined in .*a\.stanza, line 3 already"):
        definitions(tmp_path).osimages()


@pytest.mark.parametrize("kind", ["missing", "empty directory", "latin"])
def test_a_source_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.stanza"
    if kind == "empty directory":
        path.mkdir()
    elif kind == "latin":
        path.write_bytes(b"a:\n    objtype=osimage\n    usercomment=Gr\xfc\xdfe\n")
    with pytest.raises(AvsError, match=str(path)):
        definitions(path).osimages()

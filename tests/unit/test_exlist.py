"""Exlists as packimage reads them: what it is asked to leave out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xcat_avs.definitions import exlist, includes, pkglist
from xcat_avs.errors import AvsError

EXLIST = """\
# what the nodes do not need
./usr/share/man*

./usr/share/doc/*
  ./a/x
+./usr/share/doc/bash/copyright
-./var/empty
#INCLUDE:more.exlist#
"""
# packimage's own way with the text of an exlist (packimage.pm, imgutils.pm), to be run by Perl.
PACKIMAGE = r"""
sub include_file {
    my ($file, $idir) = @_; my @text = ();
    $file = $idir . "/" . $file unless ($file =~ /^\//);
    open(INCLUDE, $file) || return "#INCLUDEBAD:cannot open $file#";
    while (<INCLUDE>) { chomp($_); s/\s+$//; next if /^\s*$/; push(@text, $_); }
    close(INCLUDE);
    return join("\n", @text);
}
my ($list, $idir) = @ARGV; local $/ = undef; open(my $in, "<", $list); my $text = <$in>; $/ = "\n";
$text =~ s/#INCLUDE:([^#^\n]+)#/include_file($1,$idir)/eg while ($text =~ /#INCLUDE:[^#^\n]+#/);
foreach (split("\n", $text)) { s/\s*#.*//; next if /^\s*$/; if (s/^\+//) { print "+$_\n"; } else { s/^\-//; print "-$_\n"; } }
"""


def read(path: Path, **variables: str) -> tuple[list[str], list[str]]:
    return exlist.read([path], variables)


def test_an_exlist(tmp_path: Path) -> None:
    (tmp_path / "exlist").write_text(EXLIST)
    (tmp_path / "more.exlist").write_text("./tmp/*\n+ ./tmp/keep\n")
    assert read(tmp_path / "exlist") == (
        ["./usr/share/man*", "./usr/share/doc/*", "./a/x", "./var/empty", "./tmp/*"],
        ["./usr/share/doc/bash/copyright", "./tmp/keep"],
    )
    assert exlist.read([], {}) == ([], [])


@pytest.mark.skipif(not shutil.which("perl"), reason="packimage is Perl")
@pytest.mark.parametrize(
    "text",
    [
        "#INCLUDE:base#", "#INCLUDE:base#  # what all leave out\n./x", "# see #INCLUDE:base#\n./x", "./x #INCLUDE:base#",
        "./x#INCLUDE:base#./y", "#INCLUDE:base##INCLUDE:other#", "#INCLUDE:base#\n#INCLUDE:base#", "#INCLUDE:empty#./x",
        "#INCLUDE:sub/nested#", "#INCLUDE:ba^se#\n./x", "#INCLUDE:#\n./x", "#INCLUDE:base\n#\n./x", "+#INCLUDE:base#", "## #INCLUDE:base#",
        "./x\x0c./y\n./caf\udce9\n",
    ],
)  # fmt: skip
def test_includes_are_those_that_packimage_takes(tmp_path: Path, text: str) -> None:
    (tmp_path / "sub").mkdir()
    files = {"base": "./a\n\n./b  \n# no\n+./c\n", "other": "./d", "empty": "\n", "list": text,
             "sub/nested": "./n\n#INCLUDE:beside#\n", "beside": "./beside\n", "sub/beside": "./wrong\n"}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(os.fsencode(content))
    argv = ["perl", "-e", PACKIMAGE, str(tmp_path / "list"), str(tmp_path)]
    said = os.fsdecode(subprocess.run(argv, capture_output=True, check=True).stdout).split("\n")
    excluded, included = read(tmp_path / "list")
    assert excluded == [line[1:] for line in said if line.startswith("-")]
    assert included == [line[1:] for line in said if line.startswith("+")]


def test_a_variable_in_the_name_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "exlist").write_text("#INCLUDE:${LISTS}/$NAME.exlist#\n")
    (tmp_path / "base.exlist").write_text("./tmp/*\n")
    assert read(tmp_path / "exlist", LISTS=str(tmp_path), NAME="base") == (["./tmp/*"], [])
    with pytest.raises(AvsError, match=re.escape("nothing gives ${LISTS} a value")):
        read(tmp_path / "exlist")


@pytest.mark.parametrize("name", ["exlist", "./exlist", "../{}/exlist", "other"])
def test_an_exlist_that_includes_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / "exlist").write_text(f"#INCLUDE:{name.format(tmp_path.name)}#\n")
    (tmp_path / "other").write_text("#INCLUDE:exlist#\n")
    with pytest.raises(AvsError, match="includes itself") as caught:
        read(tmp_path / "exlist")
    assert len(str(caught.value)) < 1000


def test_lists_that_are_included_too_deep(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_text(f"#INCLUDE:{number + 1}#\n")
    with pytest.raises(AvsError, match="more than 50 deep"):
        read(tmp_path / "0")


def test_an_exlist_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AvsError, match=f"the exlist {tmp_path}/none: No such file"):
        read(tmp_path / "none")
    (tmp_path / "exlist").write_text("./a\n#INCLUDE:a\0b#\n")
    with pytest.raises(AvsError, match="NUL byte"):
        read(tmp_path / "exlist")


def test_one_list_that_is_missing_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "top").write_text("#INCLUDE:one#\n#INCLUDE:none#\n#INCLUDE:${X}/two#\n## #INCLUDE:three#\n")
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("#INCLUDE:top#\n")
    source = includes.source(tmp_path / "top", pkglist.KIND, {"X": "."})
    found, problems = includes.files([source], comments=False)
    assert found == [tmp_path / "top", tmp_path / "one", tmp_path / "two"]
    assert problems == [f"{tmp_path}/top, line 2 names the package list {tmp_path}/none: No such file or directory"]
    assert includes.files([source], comments=True)[0] == [*found, tmp_path / "three"]

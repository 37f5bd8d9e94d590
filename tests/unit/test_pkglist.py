"""Package lists, as xCAT's are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from xcat_avs.definitions import pkglist
from xcat_avs.errors import AvsError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(paths: Sequence[Path], strip_directory: bool = False, **variables: str) -> pkglist.PackageList:
    return pkglist.read(paths, variables, strip_directory)


def test_names_comments_and_exclusions(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p",
        "# a list\n\nbash  vim,less\n   openssh-server\n-xauth\n--plymouth   # not that\nlinux-image-6.1.0-9\n"
        "@core @^minimal-environment\nfoo:i386 g++ libstdc++6 bar=1.2~rc1 baz*\nbash\r\n",
    )
    found = read([path])
    assert found.include == (
        "bash", "vim", "less", "openssh-server", "linux-image-6.1.0-9", "@core", "@^minimal-environment", "foo:i386", "g++",
        "libstdc++6", "bar=1.2~rc1", "baz*",
    )  # fmt: skip
    assert found.exclude == ("xauth", "plymouth")
    assert found.files == (path,)
    assert found.environment == ()


@pytest.mark.parametrize("blank", [" ", "\t", "  \t "])
def test_a_comment_may_follow_a_name(tmp_path: Path, blank: str) -> None:
    assert read([write(tmp_path / "p", f"vim{blank}# the editor\n")]).include == ("vim",)


def test_exclusion_wins_wherever_it_stands(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", "a\nb\n"), write(tmp_path / "2", "-a\nc\n")
    for paths in ([one, two], [two, one]):
        found = read(paths)
        assert set(found.include) == {"b", "c"}
        assert found.exclude == ("a",)


def test_includes_are_relative_to_the_list_that_the_osimage_names(tmp_path: Path) -> None:
    """As genimage has it, which puts one text into the other before it looks for the next."""
    main = write(tmp_path / "p", "#INCLUDE:sub/one#\nlast\n")
    one = write(tmp_path / "sub/one", "#INCLUDE: two #\nfirst\n")
    two = write(tmp_path / "two", f"#INCLUDE:{tmp_path}/three#\n")
    three = write(tmp_path / "three", "zero\n")
    write(tmp_path / "sub/two", "wrong\n")
    found = read([main])
    assert found.include == ("zero", "first", "last")
    assert found.files == (main, one, two, three)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("#INCLUDE:base#  # common\nlast\n", ("one", "two", "last")), ("bash #INCLUDE:base#\n", ("one", "two", "bash")),
        ("#INCLUDE:base# bash, vim\n", ("one", "two", "bash", "vim")), ("# not #INCLUDE:base#\nlast\n", ("last",)),
        ("#INCLUDE:${LISTS}/base#\n", ("one", "two")), ("#INCLUDE:$LISTS/base#\n", ("one", "two")),
    ],
)  # fmt: skip
def test_where_an_include_may_stand(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    write(tmp_path / "base", "one\n\n# no\ntwo\n")
    assert read([write(tmp_path / "p", text)], LISTS=str(tmp_path)).include == names


def test_a_file_may_be_included_twice(tmp_path: Path) -> None:
    write(tmp_path / "base", "bash\n")
    main = write(tmp_path / "p", "#INCLUDE:base#\n#INCLUDE:base#\n")
    found = read([main])
    assert found.include == ("bash",)
    assert len(found.files) == 2


@pytest.mark.parametrize("how", ["p", "./p", "../{}/p", "q", "link"])
def test_a_list_that_includes_itself(tmp_path: Path, how: str) -> None:
    main = write(tmp_path / "p", f"#INCLUDE:{how.format(tmp_path.name)}#\n")
    write(tmp_path / "q", "#INCLUDE:p#\n")
    (tmp_path / "link").symlink_to("p")
    with pytest.raises(AvsError, match="includes itself") as caught:
        read([main])
    assert "line 1" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_environment(tmp_path: Path) -> None:
    path = write(tmp_path / "p", "#ENV:INITRD_BY_DRACUT=1 A='b'#\n#ENV:A=c#\nbash\n#NEW_INSTALL_LIST#\nvim\n")
    found = read([path])
    assert dict(found.environment) == {"INITRD_BY_DRACUT": "1", "A": "c"}
    assert found.include == ("bash", "vim")


def test_names_of_an_otherpkglist_are_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "p", "xcat/xcat-core/xCATsn\n-slurm/munge\n@group\nplain\n")
    found = read([path], strip_directory=True)
    assert found.include == ("xCATsn", "@group", "plain")
    assert found.exclude == ("munge",)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("bash\n;id\n", 2, ";id"), ("$(id)\n", 1, "$(id)"), ("a b|c\n", 1, "b|c"), ("-\n", 1, "'-'"), ("ä\n", 1, "ä"),
        ("#ENV:PATH#\n", 1, "PATH"), ("#ENV:1A=x#\n", 1, "1A=x"), ("a\n\n`id`\n", 3, "`id`"), ("'a'\n", 1, "'a'"),
    ],
)  # fmt: skip
def test_bad_words_are_refused_with_file_and_line(tmp_path: Path, text: str, line: int, word: str) -> None:
    path = write(tmp_path / "p", text)
    with pytest.raises(AvsError) as caught:
        read([path])
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert word in str(caught.value)


def test_a_missing_list_says_who_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(AvsError, match=f"the definition names the package list {tmp_path}/none: No such file"):
        read([tmp_path / "none"])
    main = write(tmp_path / "p", "a\n#INCLUDE:none#\n")
    with pytest.raises(AvsError, match=f"{main}, line 2 names the package list {tmp_path}/none"):
        read([main])


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(b"bash\n# Gr\xfc\xdfe\n")
    assert read([path]).include == ("bash",)
    path.write_bytes(b"Gr\xfc\xdfe\n")
    with pytest.raises(AvsError, match="not a package name"):
        read([path])
    with pytest.raises(AvsError, match="directory"):
        read([tmp_path])


def test_nothing() -> None:
    assert read([]) == pkglist.PackageList((), (), (), ())

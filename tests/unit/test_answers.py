"""What svn answers, taken apart; the answers are svn's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.store.fsvs import answers

NAMES = (
    "plain",
    "with space",
    "a@b",
    "@2",
    "ü ✓",
    "100%",
    "a#b?c",
    "a%20b",
    "&<>'\"",
    "a;b+c",
    "[x]{y}",
    "~t",
    "r@HEAD",
)


def svn(*argv: str, cwd: Path) -> bytes:
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["svn", *argv], cwd=cwd, env=env, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A repository with the trees old and new, whose place needs escapes itself."""
    subprocess.run(["svnadmin", "create", str(tmp_path / "a repö")], check=True)
    url = f"file://{quote(str(tmp_path / 'a repö'))}"
    for side in ("old", "new"):
        tree = tmp_path / side
        for name in NAMES:
            for directory in ("same", f"only {side}", f"{side} @1/sub"):
                (tree / directory).mkdir(parents=True, exist_ok=True)
                (tree / directory / name).write_text(directory)
            (tree / "changed").mkdir(exist_ok=True)
            (tree / "changed" / name).write_text(side)
        kind = tree / "kind"
        if side == "old":
            kind.write_text("a file")
        else:
            kind.mkdir()
        svn("import", "-q", "-m", "import", str(tree), f"{url}/{side}", cwd=tmp_path)
    svn("co", "-q", f"{url}/new", "wc", cwd=tmp_path)
    svn("propset", "-q", "svn:owner", "5", "same/ü ✓", "same", "changed/@2@", ".", cwd=tmp_path / "wc")
    svn("ci", "-q", "-m", "some properties", cwd=tmp_path / "wc")
    return url


def test_summary(url: str, tmp_path: Path) -> None:
    said = svn("diff", "--summarize", "--xml", f"--old={url}/old@HEAD", f"--new={url}/new@HEAD", cwd=tmp_path)
    found = answers.summary(ElementTree.fromstring(said), f"{url}/old")
    wanted = {f"changed/{name}": "changed" for name in NAMES} | {"kind": "changed"}
    for side, word in (("old", "removed"), ("new", "added")):
        for directory in (f"only {side}", f"{side} @1", f"{side} @1/sub"):
            wanted[directory] = word
        wanted |= {f"{directory}/{name}": word for directory in (f"only {side}", f"{side} @1/sub") for name in NAMES}
    wanted |= {"same": "properties", "same/ü ✓": "properties"}
    assert dict(found) == wanted
    assert found == sorted(found)


def test_documents() -> None:
    data = b'{"a": 1}\n{"b": "}{"}{"c": {}}\n\n {"d": []}\n'
    assert answers.documents(data, "x") == [{"a": 1}, {"b": "}{"}, {"c": {}}, {"d": []}]
    assert answers.documents(b" \n", "x") == []


@pytest.mark.parametrize("data", [b"{", b'{"a": 1} x', b"[]", b'{"a": 1}\n3', b"\xff"])
def test_documents_that_are_none(data: bytes) -> None:
    with pytest.raises(AvsError, match=r"x: document \d is no JSON"):
        answers.documents(data, "x")

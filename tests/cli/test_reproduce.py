"""verify --reproduce: what is packed is packed again, and compared."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.pack import reproducing
from xcat_avs.serve.sets import PackedSet

from .conftest import Answer, Installation

IGZIP = """#!/bin/sh
case " $* " in
*" --version "*) echo "igzip 0.0" ;;
*" -d "*) exec gzip "$@" ;;
*) exec gzip -n -1 -c ;;
esac
"""


def lines(answer: Answer, code: int = 0) -> list[str]:
    """What is said of what was packed again."""
    assert answer.code == code, answer
    found = answer.out.splitlines()
    start = next(number for number, line in enumerate(found) if "packed" in line and "files are as they" not in line)
    return found[start:]


@pytest.mark.slow
def test_reproduce(built: Installation, tmp_path: Path) -> None:
    verify = ["-c", "verify", "example.prod", "-t", "v1", "--reproduce"]
    assert re.match(r"\[WARN\] .* is packed nowhere here", lines(built(*verify))[0])
    place = built.install / "netboot/debian12/x86_64/example.prod"
    # As avs.conf says; and as a command line said, of which the record knows a hash only, and by masquerading.
    for words in ([], ["-x", "example.test", "--method", "tar", "--compress", "xz"]):
        assert built("-c", "pack", "example.prod", "-t", "v1", *words).code == 0
    before = {path: path.read_bytes() for path in place.parent.glob("*/*") if path.is_file()}
    for name in ("builds", "checkouts"):  # from the store anew, and not from the tree that was built
        shutil.rmtree(built.top / "state" / name)
    said = lines(built(*verify))
    assert [line.split(": ")[1] for line in said if line.startswith("[ OK ]")] == [
        "packed again, all 3 files come out the same, to the byte"
    ] * 2
    assert {path: path.read_bytes() for path in place.parent.glob("*/*") if path.is_file()} == before
    assert os.listdir(built.top / "state/staging") == []

    # What lies there is not what was packed, though the same comes out.
    kernel = place.with_name("example.test") / "kernel"
    kernel.write_bytes(b"another")
    said = lines(built(*verify), code=1)
    assert sum(line.startswith("[FAIL]") and "what lies there was changed since" in line for line in said) == 1
    kernel.write_bytes(before[kernel])

    # By another program: it is named, and so is what it means.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/igzip").write_text(IGZIP)
    (tmp_path / "bin/igzip").chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    text = "\n".join(lines(built(*verify, env=env)))
    assert "[WARN]" in text
    assert "1 of 3 files come out as others, by other programs" in text
    assert "igzip 0.0 now" in text
    assert "rootimg.cpio.gz: holds just the same (in another order, or packed otherwise)" in text

    # Something else than the tag was packed, or the packer is not what it was.
    record = place / "avs.json"
    document = json.loads(record.read_text())
    document["files"]["rootimg.cpio.gz"]["sha256"] = "0" * 64
    record.write_text(json.dumps(document))
    text = "\n".join(lines(built(*verify), code=1))
    assert "[FAIL]" in text
    assert "packed again, 1 of 3 files come out as others" in text

    built.put("install/custom/example.exlist", "./var/log*\n")
    stanza = (built.top / "images.stanza").read_text()
    changed = stanza.replace(
        "    profile=example.prod", f"    exlist={built.install}/custom/example.exlist\n    profile=example.prod"
    )
    built.put("images.stanza", changed)
    findings = json.loads(built(*verify, "--json").out)["findings"]
    again = [(item["result"], item["text"].partition(": ")[2]) for item in findings if "packed again" in item["text"]]
    assert [item[0] for item in again] == ["[WARN]", "[ OK ]"]
    assert any("the definition, the exlist or [pack] are others" in item["text"] for item in findings)


def test_without_room(tmp_path: Path) -> None:
    record = PackedSet("a", "a", "t", 1, date="", user="", archive="x", files={"x": {"size": 1 << 60, "sha256": ""}})
    with pytest.raises(AvsError, match=r"that takes .* in .*, and .* are free; nothing was packed"):
        reproducing._refuse_full(tmp_path, record)

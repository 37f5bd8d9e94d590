"""Passwords in URLs: masked wherever text is shown or written."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.escape import masked, printable, printable_lines
from xcat_avs.generate import aptsources
from xcat_avs.report import LEFT, Place, Raw, Report, Table, to_json, to_text
from xcat_avs.store.fsvs.store import FsvsStore
from xcat_avs.system import masking
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner

URL, SHOWN = "https://ann:sesame@svn.example.com/images", "https://ann:***@svn.example.com/images"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, SHOWN),
        ("svn+ssh://a:b%40c@h/x and http://u:p@ss@h:80/", "svn+ssh://a:***@h/x and http://u:***@h:80/"),
        ("https://u:p/x@h/", "https://u:***@h/"),
        ("http://[::1]:80/x@5", "http://[::1]:80/x@5"),
        ("http://h:80/a,http://u:p@h/", "http://h:80/a,http://u:***@h/"),
        ("http://:tok@h/", "http://:***@h/"),
        ("export X='https://u:p@h/'", "export X='https://u:***@h/'"),
        (SHOWN, SHOWN),
        ("https://ann@h/x", "https://ann@h/x"),
        ("http://h:8080/trunk@5", "http://h:8080/trunk@5"),
        ("file:///x:y@z", "file:///x:y@z"),
        ("mail ann:x@h", "mail ann:x@h"),
        ("https://h:443/a http://b@h/", "https://h:443/a http://b@h/"),
    ],
)
def test_only_the_password_goes(text: str, shown: str) -> None:
    assert masked(text) == printable(text) == printable_lines(text) == masking.text(text) == shown
    assert masking.data(text.encode()) == shown.encode()


def test_everything_that_is_told() -> None:
    table = Table(("A",), [(URL,)], [LEFT])
    report = Report([f"text {URL}", table, Raw(f"export A={URL}")], {"a": URL, "b": [{"c": (URL,)}], URL: 1, "n": None})
    stream = io.StringIO()
    progress = Progress(stream, verbose=True)
    progress.warn(URL)
    progress.started(["svn", "info", URL])
    texts = [to_text(report), to_text(report, Place(terminal=True)), to_json(report), stream.getvalue()]
    texts.append(str(AvsError(f"no {URL}", [f"svn: {URL}"])))
    for text in texts:
        assert "sesame" not in text
        assert SHOWN in text
    assert json.loads(to_json(report))["b"] == [{"c": [SHOWN]}]


def test_logs_have_neither_what_was_run_nor_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    Runner(log).run(["sh", "-c", f"echo said {URL}; echo more"])
    with pytest.raises(AvsError) as failed:
        Runner(log).run(["sh", "-c", f"echo {URL} >&2; exit 3"])
    Runner(log).pipe([["echo", URL], ["cat"]])
    text = log.read_text()
    assert "sesame" not in text + str(failed.value)
    assert text.startswith("before\n+ sh -c echo said ")
    assert f"said {SHOWN}\nmore\n" in text


def test_a_file_that_programs_append_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with masking.appended(log), open(log, "ab") as stream:
        stream.write(b"\xff " + URL.encode() + b"\n")
        with masking.appended(log):
            stream.write(URL.encode() + b"\n")
            stream.flush()
        stream.write(b"end\n")
    assert log.read_bytes() == b"\xff " + SHOWN.encode() + b"\n" + SHOWN.encode() + b"\nend\n"
    with masking.appended(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


def test_a_store_with_a_password_in_its_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvsError) as failed:
        FsvsStore(URL, tmp_path)
    assert "sesame" not in str(failed.value)
    assert failed.value.next == "svn info https://ann@svn.example.com/images"
    FsvsStore("https://ann@svn.example.com/images", tmp_path)
    for url in (
        "svn://:p@h/x",
        "https://a:p/q@h/x",
        "svn+ssh://a:@h/x",
        "svn://a:p q@h/x",
        'svn://a@b:p"@h/x',
        "svn://a[b:p@h/",
    ):
        with pytest.raises(AvsError, match="has a password in its URL"):
            FsvsStore(url, tmp_path)
    with pytest.raises(AvsError, match="is no URL of a Subversion repository"):
        FsvsStore("https://[::1/x", tmp_path)
    FsvsStore("svn://ann@[::1]:3690/x", tmp_path)


def test_a_long_list_of_urls_is_no_work() -> None:
    text = "http://a:b," * 20000
    started = time.process_time()
    assert masked(text) == text
    assert time.process_time() - started < 20, "by the square of its length it was minutes"


def test_sources_with_a_password_are_no_arguments(tmp_path: Path) -> None:
    plain, secret = "http://a.example/debian", "http://ann:sesame@b.example/debian"
    image = OsImage("debian12-x86_64-netboot-x", {"pkgdir": plain})
    assert aptsources.sources(image, tmp_path) == [f"deb {plain} bookworm main"]
    both = OsImage("debian12-x86_64-netboot-x", {"pkgdir": f"{plain},{secret}"})
    assert aptsources.sources(both, tmp_path) == [f"deb {plain} bookworm main", str(tmp_path / "avs.list")]
    assert (tmp_path / "avs.list").read_text() == f"deb {secret} bookworm main\n"


@pytest.mark.parametrize("cut", [0, 5, 12, len(URL)])
def test_a_log_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """And a password that is in two of them is found, what is around it stays, and what was there before is let be."""
    monkeypatch.setattr(masking, "PIECE", 5000)
    log = tmp_path / "log"
    log.write_text(f"{URL}\n")
    before, after = "x" * (20_000 - cut - 1) + " ", " " + "y" * 30_000
    with masking.appended(log), open(log, "a") as stream:
        stream.write(f"{before}{URL}{after} {URL}\n")
    assert log.read_text() == f"{URL}\n{before}{SHOWN}{after} {SHOWN}\n"

"""How the command begins: in any locale, with little memory, and interrupted before it has begun."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

AVSIMAGE = [str(Path(sys.executable).with_name("avsimage"))]
MODULE = [sys.executable, "-m", "xcat_avs"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def start(argv: list[str], words: list[bytes], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*argv, *words], capture_output=True, check=False, env={"PATH": os.environ["PATH"], **environment}, timeout=60
    )


@pytest.fixture(scope="module")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a real locale whose encoding is ISO-8859-1."""
    if not shutil.which("localedef"):
        pytest.skip("no localedef")
    directory = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(directory / "de_DE.ISO-8859-1")], check=False
    )
    if made.returncode:
        pytest.skip("no sources of locales")
    return {"LOCPATH": str(directory), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.mark.parametrize("argv", [AVSIMAGE, MODULE], ids=["command", "module"])
def test_words_are_the_same_in_every_locale(argv: list[str], latin1: dict[str, str], tmp_path: Path) -> None:
    """UTF-8 is UTF-8 whatever the locale is; a terminal that cannot show it gets escapes."""
    environments = {"utf-8": {"LC_ALL": "C.UTF-8"}, "c": {"LC_ALL": "C"}, "ascii": ASCII, "latin-1": latin1}
    said = {}
    for name, environment in environments.items():
        done = start(argv, [b"-c", "größe → 3".encode()], **environment)
        assert done.returncode == 1
        said[name] = done.stderr
    assert "unknown mode 'größe → 3'".encode() in said["utf-8"] == said["c"]
    assert rb"unknown mode 'gr\xf6\xdfe \u2192 3'" in said["ascii"]
    assert "unknown mode 'größe ".encode("latin-1") + rb"\u2192 3'" in said["latin-1"]


def test_a_message_typed_in_latin_1(latin1: dict[str, str], tmp_path: Path) -> None:
    word = "größe".encode("latin-1")
    assert b"unknown mode '" + word + b"'" in start(AVSIMAGE, [b"-c", word], **latin1).stderr
    refused = start(AVSIMAGE, [b"-c", word], LC_ALL="C.UTF-8")
    assert rb"not UTF-8 text" in refused.stderr
    assert b"Traceback" not in refused.stderr


def test_ctrl_c_before_anything_is_begun(tmp_path: Path) -> None:
    """While modules are loaded: no traceback."""
    (tmp_path / "shlex.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    done = start(AVSIMAGE, [b"-c", b"env", b"x"], PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("error", ["MemoryError", "ImportError('libx.so: failed to map segment')", "SystemError('x')"])
@pytest.mark.parametrize(("module", "words"), [("shlex", [b"-v"]), ("configparser", [b"-c", b"env", b"x"])])
def test_too_little_memory_to_begin(tmp_path: Path, error: str, module: str, words: list[bytes]) -> None:
    """While the command line is loaded, and while a mode is."""
    (tmp_path / f"{module}.py").write_text(f"raise {error}\n")
    done = start(AVSIMAGE, words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: there is not enough memory; is it limited (ulimit -v)?")
    assert done.stderr.count(b"\n") == 1


def test_a_module_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import no_such_module\n")
    done = start(AVSIMAGE, [b"-v"], PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: the Python module no_such_module is missing")


@pytest.mark.parametrize("kilobytes", [24000, 38000, 60000])
def test_a_small_limit_of_memory(kilobytes: int) -> None:
    limited = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$0" "$@"', *AVSIMAGE]
    done = start(limited, [b"-c", b"env", b"x"], AVS_CONF="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: ")
    assert b"Traceback" not in done.stderr

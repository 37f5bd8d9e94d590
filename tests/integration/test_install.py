"""The package as a user installs it, and with the oldest libraries it supports."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SCRIPT = TOP / "share/xcat/avs/install-xcat"


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in argv], env={**os.environ, **env}, text=True, capture_output=True, check=False
    )


@pytest.fixture
def definitions(tmp_path: Path) -> dict[str, str]:
    """A standalone installation; returns its environment."""
    text = (TOP / "share/xcat/avs/examples/example.stanza").read_text(encoding="utf-8")
    (tmp_path / "images.stanza").write_text(text, encoding="utf-8")
    conf = tmp_path / "avs.conf"
    lines = [
        "[xcat]",
        "use = no",
        f"definitions = {tmp_path}/images.stanza",
        "[paths]",
        f"store = file://{tmp_path}/repo",
    ]
    conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"AVS_CONF": str(conf)}


@pytest.mark.slow
def test_installed_from_source_it_has_all_its_files(tmp_path: Path, definitions: dict[str, str]) -> None:
    source = tmp_path / "source"
    shutil.copytree(TOP, source, ignore=shutil.ignore_patterns(".git", ".venv", "*.egg-info", "tests", ".*_cache"))
    shutil.rmtree(source / "build", ignore_errors=True)
    venv = tmp_path / "venv"
    assert run("/usr/bin/python3", "-m", "venv", "--system-site-packages", venv).returncode == 0
    flags = ["-q", "--no-index", "--no-deps", "--no-build-isolation"]
    installed = run(venv / "bin/pip", "install", *flags, source, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(source)
    for name in ("man1/avsimage.1", "man5/avs.conf.5", "man7/avs-procedures.7", "man7/avs-runbook.7"):
        assert (venv / "share/man" / name).is_file()
    assert (venv / "share/xcat/avs/avs.conf").is_file()
    steps = run(venv / "bin/avsimage", "-c", "steps", "example.prod", "-V", **definitions)
    assert steps.returncode == 0, steps.stderr
    assert f"{venv}/lib" in steps.stdout
    assert f"{venv}/share/xcat/avs/recipes/default.conf" in steps.stdout


def test_the_libraries_of_debian_12_are_new_enough(definitions: dict[str, str]) -> None:
    """The system's interpreter sees Debian's sh, typer and tabulate, the oldest that setup.cfg allows."""
    for words, expected in ((["-h"], "Modes:"), (["-c", "env", "example.prod"], "export FSVS_REPOSITORY="),
                            (["-c", "steps", "example.prod"], "cleanup")):  # fmt: skip
        done = run("/usr/bin/python3", "-m", "xcat_avs", *words, PYTHONPATH=str(TOP), **definitions)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    none = run(
        "/usr/bin/python3", "-m", "xcat_avs", "-c", "list-tags", "example.prod", PYTHONPATH=str(TOP), **definitions
    )
    assert (none.returncode, none.stdout) == (1, "")
    assert "there is no store yet" in none.stderr
    wrong = run("/usr/bin/python3", "-m", "xcat_avs", "--nosuch", PYTHONPATH=str(TOP), **definitions)
    assert (wrong.returncode, wrong.stderr) == (1, "Error: there is no option --nosuch; see avsimage -h\n")


@pytest.fixture
def xcat(tmp_path: Path) -> dict[str, str]:
    """An XCATROOT that has lsdef, and the environment to install into it from what is on this machine."""
    (tmp_path / "xcat/bin").mkdir(parents=True)
    return {"XCATROOT": str(tmp_path / "xcat"), "AVS_COMPLETIONS": str(tmp_path / "share"), "PYTHON": "/usr/bin/python3",
            "AVS_VENV_OPTIONS": "--system-site-packages",
            "AVS_PIP_OPTIONS": "--no-index --no-deps --no-build-isolation"}  # fmt: skip


def lsdef(tmp_path: Path, script: str) -> None:
    path = tmp_path / "xcat/bin/lsdef"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("words", "code"), [(["-h"], 0), (["--help"], 0), (["--bogus"], 1), (["--remove", "x"], 1)])
def test_install_xcat_says_how_it_is_called(xcat: dict[str, str], words: list[str], code: int) -> None:
    """As xCAT's commands do, and as nobody in particular."""
    done = run(SCRIPT, *words, **{**xcat, "XCATROOT": "/nonexistent"})
    assert "install-xcat --remove" in done.stdout
    assert done.stderr == (f"Error: install-xcat takes nothing or --remove, not '{' '.join(words)}'\n" if code else "")
    assert done.returncode == code


@pytest.mark.skipif(os.geteuid() != 0, reason="as root only")
@pytest.mark.parametrize("script", ["exit 111", "", None])
def test_install_xcat_guesses_no_installdir(tmp_path: Path, xcat: dict[str, str], script: str | None) -> None:
    """Where xCAT does not say it, nothing is installed; where its table says nothing, that is said."""
    if script is not None:
        lsdef(tmp_path, script)
    done = run(SCRIPT, **{**xcat, "INSTALLDIR": "", "AVS_VENV_OPTIONS": "--nosuchoption"})
    if script == "":
        assert "taking /install" in done.stderr
    else:
        assert "set INSTALLDIR" in done.stderr
        assert not (tmp_path / "xcat/share").exists()
    assert done.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="as root only")
def test_install_xcat_leaves_a_package_alone(tmp_path: Path, xcat: dict[str, str]) -> None:
    (tmp_path / "xcat/lib/python/avs").mkdir(parents=True)
    done = run(SCRIPT, **xcat, INSTALLDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the package xcat-avs is installed in ")


@pytest.mark.slow
def test_install_xcat_brings_the_postscript_and_takes_it_away(tmp_path: Path, xcat: dict[str, str]) -> None:
    xcatroot, installdir = tmp_path / "xcat", tmp_path / "install"
    (installdir / "postscripts").mkdir(parents=True)
    (installdir / "postscripts/otherpkgs").write_text("of xCAT\n")
    # xcatd is down, and the table can be read all the same.
    lsdef(tmp_path, f'[ "$XCATBYPASS" = 1 ] || exit 111\necho "clustersite: installdir={installdir}"')
    for _ in range(2):  # over itself
        done = run(SCRIPT, **xcat, INSTALLDIR="")
        assert done.returncode == 0, done.stderr
    postscript = installdir / "postscripts/avsaddons"
    assert postscript.read_bytes() == (TOP / "share/xcat/avs/avsaddons").read_bytes()
    assert os.access(postscript, os.X_OK)
    assert sorted(os.listdir(installdir / "postscripts")) == ["avsaddons", "otherpkgs"]
    assert len(list(xcatroot.glob("share/xcat/avs/venv/lib/*/site-packages/xcat_avs/addons/common/kvm.py"))) == 1
    recipe = xcatroot / "share/xcat/avs/recipes/default.conf"
    for path in ("bash-completion/completions/avsimage", "zsh/site-functions/_avsimage"):
        assert "\n_avsimage_modes='check create " in (tmp_path / "share" / path).read_text()
    name = "example.debian.conf"
    assert list(xcatroot.rglob(name)) == [recipe.with_name(name)]  # no second copy
    code = "from xcat_avs import settings; print((settings.share_dir() / 'recipes/default.conf').resolve())"
    read = run(xcatroot / "share/xcat/avs/venv/bin/python", "-I", "-c", code)
    assert read.stdout.strip() == str(recipe)
    done = run(SCRIPT, "--remove", **xcat, INSTALLDIR="")
    assert done.returncode == 0, done.stderr
    assert os.listdir(installdir / "postscripts") == ["otherpkgs"]
    assert not (xcatroot / "bin/avsimage").exists()
    assert not (xcatroot / "share/xcat/avs").exists()
    assert not [path for path in (tmp_path / "share").rglob("*") if path.is_file()]
    assert (installdir / "custom/avs").is_dir()

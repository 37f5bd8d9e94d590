"""What packaging/wheels.py lets into the packages."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheels", TOP / "packaging/wheels.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(directory: Path, name: str, *about: str, tag: str = "py3-none-any") -> None:
    with zipfile.ZipFile(directory / f"{name}-1.0-{tag}.whl", "w") as made:
        made.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join([f"Name: {name}", "Version: 1.0", *about, ""]))


def test_wheels_that_fit(tmp_path: Path, wheels: ModuleType) -> None:
    wheel(
        tmp_path,
        "one",
        "Requires-Python: >=3.8",
        "Requires-Dist: two_b>=1; python_version < '3.10'",
        "Requires-Dist: no; extra == 'x'",
    )
    wheel(tmp_path, "two_b", "Requires-Dist: colorama; sys_platform == 'win32'", tag="py2.py3-none-any")
    assert wheels.problems(tmp_path, ["one >= 0.5, < 2"]) == []


def test_wheels_that_do_not(tmp_path: Path, wheels: ModuleType) -> None:
    """Each would fail on some distribution, and not on the machine that builds the package."""
    wheel(tmp_path, "new", "Requires-Python: >=3.10")
    wheel(tmp_path, "built", tag="cp311-cp311-manylinux_2_17_x86_64")
    wheel(tmp_path, "needy", "Requires-Dist: backport; python_version < '3.11'", "Requires-Dist: new>=2")
    assert wheels.problems(tmp_path, ["needy", "absent"]) == [
        "built-1.0-cp311-cp311-manylinux_2_17_x86_64.whl is not of pure Python",
        "new-1.0-py3-none-any.whl is not for Python 3.9",
        "avsimage needs absent with Python 3.9, and there is none",
        'needy-1.0-py3-none-any.whl needs backport; python_version < "3.11" with Python 3.9, and there is none',
        "needy-1.0-py3-none-any.whl needs new>=2 with Python 3.9, and there is 1.0",
    ]


def test_what_the_program_needs_is_read_from_setup_cfg(tmp_path: Path, wheels: ModuleType) -> None:
    """With its extras, but for those of the tests."""
    text = "[options]\ninstall_requires =\n    sh >= 1\n    # why\n    typer\n[options.extras_require]\ntest =\n    pytest\nboot =\n    pexpect\n"
    (tmp_path / "setup.cfg").write_text(text)
    assert wheels.wanted(tmp_path / "setup.cfg") == ["sh >= 1", "typer", "pexpect"]

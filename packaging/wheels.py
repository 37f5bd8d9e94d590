"""The libraries that go into the packages: wheels of pure Python, for every Python from 3.9 on.

`wheels.py DIRECTORY` has them there: they are fetched by pip unless they are there already, for what setup.cfg says
the program needs. It fails where one is not for all of these Pythons, or needs another that is not there.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

PYTHONS = [f"3.{minor}" for minor in range(9, 15)]
OLDEST = PYTHONS[0]
# Extras that are not for a package: what only tests need, and what takes more room than all else.
LEFT_OUT = ("test", "html")
WANTED = "wanted"  # the file that says what the wheels are for


def wanted(setup: Path) -> list[str]:
    """What the program needs, and what its extras do."""
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    extras = [text for name, text in parser.items("options.extras_require") if name not in LEFT_OUT]
    lines = "\n".join([parser["options"]["install_requires"], *extras]).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def fetch(directory: Path, requirements: list[str]) -> None:
    """Have them in an empty directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    flags = ["--only-binary=:all:", "--implementation=py", "--abi=none", "--platform=any", f"--python-version={OLDEST}"]
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *flags, "-d", str(directory)]
    subprocess.run([*argv, *requirements], check=True)
    (directory / WANTED).write_text("\n".join(requirements) + "\n", encoding="utf-8")


def problems(directory: Path, requirements: list[str]) -> list[str]:
    """What is wrong with the wheels."""
    found, needs = [], [("avsimage", Requirement(line)) for line in requirements]
    versions = {}
    for path in sorted(directory.glob("*.whl")):
        name, version, _, tags = parse_wheel_filename(path.name)
        versions[name] = version
        if not {("none", "any")} <= {(tag.abi, tag.platform) for tag in tags}:
            found.append(f"{path.name} is not of pure Python")
        with zipfile.ZipFile(path) as wheel:
            member = next(item for item in wheel.namelist() if item.endswith(".dist-info/METADATA"))
            about = Parser().parsestr(wheel.read(member).decode("utf-8"))
        python = Requirement(f"python{about.get('Requires-Python', '')}").specifier
        found += [f"{path.name} is not for Python {each}" for each in PYTHONS if not python.contains(each)]
        needs += [(path.name, Requirement(line)) for line in about.get_all("Requires-Dist", [])]
    for who, need in needs:
        for each in PYTHONS:
            place = {"python_version": each, "python_full_version": f"{each}.0", "extra": "", "sys_platform": "linux"}
            if need.marker and not need.marker.evaluate(place):
                continue
            version = versions.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version):
                found.append(f"{who} needs {need} with Python {each}, and there is {version or 'none'}")
                break
    return found


def main(directory: Path) -> None:
    requirements = wanted(Path(__file__).resolve().parent.parent / "setup.cfg")
    stamp = directory / WANTED
    if not stamp.exists() or stamp.read_text(encoding="utf-8").split("\n")[:-1] != requirements:
        fetch(directory, requirements)
    wrong = problems(directory, requirements)
    if wrong:
        sys.exit("Error: " + "\n  ".join([f"these wheels in {directory} cannot be packaged:", *wrong]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Package sources of a Debian or Ubuntu image: pkgdir, or the machine's own apt configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import directories
from xcat_avs.system import command, masking
from xcat_avs.system.runner import capture

CODENAMES = {
    "debian": {"9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"},
    "ubuntu": {
        "16.04": "xenial",
        "18.04": "bionic",
        "20.04": "focal",
        "22.04": "jammy",
        "24.04": "noble",
        "26.04": "resolute",
    },
}
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64el",
    "x86": "i386",
    "i686": "i386",
    "i586": "i386",
    "i486": "i386",
}
COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
# The apt settings that decide whether a mirror can be reached.
NETWORK_SETTING = re.compile(r"Acquire::(?:http|https|ftp|Retries|ForceIPv[46]|Check-Valid-Until)\b.*")
ETC_APT = Path("/etc/apt")


def codename(image: OsImage) -> str:
    """The suite of an osvers: debian12 -> bookworm, ubuntu24.04.1 -> noble."""
    version = image.version
    key = (
        version.major if version.distribution == "debian" else ".".join([version.major, *version.minor.split(".")[:1]])
    )
    found = CODENAMES[version.distribution].get(key)
    if found is None:
        known = ", ".join(f"{version.distribution}{number}" for number in CODENAMES[version.distribution])
        raise AvsError(f"{image.name}: no suite is known for osvers {image.osvers}; known are {known}")
    return found


def architecture(image: OsImage) -> str:
    """dpkg's name of an osarch."""
    return ARCHITECTURES.get(image.osarch, image.osarch)


def sources(image: OsImage, work: Path) -> list[str]:
    """Mirror arguments for mmdebstrap: lines of a sources.list, or files. Raises AvsError if there are none."""
    suite = codename(image)
    components = COMPONENTS[image.version.distribution]
    lines = [_line(item, suite, components, image.name) for item in directories(image, "pkgdir")]
    if not lines:
        lines = machine_sources(suite, work)
        if not lines:
            raise AvsError(
                f"{image.name} names no pkgdir, and this machine's apt has no source for {suite}; set pkgdir in {image.origin}"
            )
    for item in directories(image, "otherpkgdir"):
        # xCAT sets otherpkgdir for every image, mostly to a directory that does not exist.
        if "://" in item or (Path(item) / "Packages").exists() or (Path(item) / "Packages.gz").exists():
            lines.append(_line(item, suite, components, image.name))
    secret = [line for line in lines if masking.text(line) != line]
    if secret:  # in a file, for everybody sees the arguments of a program
        (work / "avs.list").write_text("".join(f"{line}\n" for line in secret), encoding="utf-8")
    return [*(line for line in lines if line not in secret), *([str(work / "avs.list")] if secret else [])]


def line(image: OsImage, item: str) -> str:
    """A line of sources.list for `URL [SUITE COMPONENT...]` or a directory. Raises AvsError for one without packages."""
    return _line(item, codename(image), COMPONENTS[image.version.distribution], image.name)


def _line(item: str, suite: str, components: str, name: str) -> str:
    """One item of pkgdir: `URL [SUITE COMPONENT...]`, or a directory (a copied medium, or just packages)."""
    url, _, rest = item.partition(" ")
    if "://" in url:
        return f"deb {url} {rest.strip() or f'{suite} {components}'}"
    directory = Path(url)
    # "copy:" and not "file:": the packages must be in the root when they are unpacked there.
    if (directory / "dists" / suite).is_dir():
        return f"deb [trusted=yes] copy:{directory} {rest.strip() or f'{suite} main'}"
    if (directory / "Packages").exists() or (directory / "Packages.gz").exists():
        return f"deb [trusted=yes] copy:{directory} ./"
    raise AvsError(f"{name}: pkgdir {directory} is no Debian repository for {suite} (no dists/{suite}, no Packages)")


def machine_sources(suite: str, work: Path) -> list[str]:
    """The machine's own apt sources of one release: one-line entries, and files of deb822 stanzas."""
    lines: list[str] = []
    stanzas: list[str] = []
    for path in [ETC_APT / "sources.list", *sorted((ETC_APT / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?\S+\s+(\S+)", line)
                if match and _of_release(match.group(1), suite):
                    lines.append(line.split("#")[0].strip())
    for path in sorted((ETC_APT / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
            found = _stanza(stanza, suite)
            if found:
                stanzas.append(found)
    if stanzas:
        file = work / "avs.sources"
        file.write_text("\n\n".join(stanzas) + "\n", encoding="utf-8")
        lines.append(str(file))
    return lines


def _of_release(name: str, suite: str) -> bool:
    return name.rstrip("/") == suite or name.startswith((suite + "-", suite + "/"))


def _stanza(text: str, suite: str) -> str:
    """A deb822 stanza with only the suites of a release, or "" if it has none of them."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and name:
            fields[name].append(line)
        elif ":" in line:
            name = line.split(":", 1)[0].strip().lower()
            fields[name] = [line]
    words = {key: " ".join(lines).split(":", 1)[1].split() for key, lines in fields.items()}
    suites = [item for item in words.get("suites", []) if _of_release(item, suite)]
    if (
        not suites
        or "deb" not in words.get("types", [])
        or words.get("enabled", ["yes"])[0].lower() in ("no", "false", "0")
    ):
        return ""
    fields["types"], fields["suites"] = ["Types: deb"], [f"Suites: {' '.join(suites)}"]
    return "\n".join(line for lines in fields.values() for line in lines)


def network_settings() -> Sequence[str]:
    """The machine's apt settings for proxies, certificates and the like, as apt.conf lines."""
    if command.find("apt-config") is None:
        return ()
    dump = capture(["apt-config", "dump"]).text
    return [line for line in dump.splitlines() if NETWORK_SETTING.fullmatch(line) and '""' not in line]

"""avs.conf: settings with a type, a default and a word of help each, read in layers."""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.osvers import OsNames, check_os_name
from xcat_avs.errors import AvsError, nearest
from xcat_avs.system import trust

ETC_CONF = Path("/etc/xcat/avs.conf")


# What reaches a command line, or a file that a shell reads, is plain.
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
LOCALE = r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"
SIZE = r"[0-9]+[kmgKMG]?"
GLOB = r"[A-Za-z0-9_.+~*?\[\]!-]+"
UNIT = r"[A-Za-z0-9_.@:*?\[\]!-]+"
ARGUMENT = r"-[A-Za-z0-9_.,:=/+@%~*?-]+"
# Kind, pattern of paths, reason, and who says so.
AllowedSecret = tuple[str, str, str, str]
# Keys that packages make when they are installed, of certificates that nothing trusts.
MADE_BY_PACKAGES = tuple(
    ("private-key", path, "of a self-signed certificate that nothing trusts", f"the default for the package {package}")
    for path, package in (
        ("/etc/ssl/private/ssl-cert-snakeoil.key", "ssl-cert"),
        ("/etc/pki/tls/private/localhost.key", "mod_ssl"),
        ("/etc/pki/tls/private/postfix.key", "postfix"),
    )
)


def _setting(section: str, name: str, default: Any, help: str, choices: tuple[str, ...] = (), pattern: str = "") -> Any:
    """pattern: what the value, or each item of it, must match; an empty value is always fine."""
    metadata = {"section": section, "name": name, "help": help, "choices": choices, "pattern": pattern}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Every setting there is. The type of the default is the type of the setting."""

    xcat: str = _setting(
        "xcat", "use", "auto", "read the xCAT tables: auto (where lsdef is), yes, no", ("auto", "yes", "no")
    )
    definitions: str = _setting("xcat", "definitions", "", "stanza file, or directory of them, when xCAT is not used")
    state: Path = _setting(
        "paths", "state", Path("/var/lib/xcat-avs"), "builds, staging, locks, FSVS's own data; root only"
    )
    logs: Path = _setting("paths", "logs", Path("/var/log/xcat/avs"), "logs of builds; root only")
    store: str = _setting(
        "paths", "store", "file:///var/lib/xcat-avs/repo", "URL of the store: Subversion (file, svn, svn+ssh, http, https) or OSTree (ostree:/DIR, ostree:https://HOST/PATH)"
    )  # fmt: skip
    installdir: str = _setting("paths", "installdir", "", "default: xCAT's own; without xCAT /install")
    tftpdir: str = _setting("paths", "tftpdir", "", "default: xCAT's own; without xCAT /tftpboot")
    generator: str = _setting(
        "image", "generator", "auto", "what builds the tree; auto: by osvers", ("auto", "genimage", "mmdebstrap", "dnf", "rinse")
    )  # fmt: skip
    pkglist: str = _setting(
        "image", "pkglist", "own", "what genimage installs: the image's own pkglist, or a minimal one", ("own", "minimal")
    )  # fmt: skip
    provider: str = _setting("image", "provider", "", "directory of XCATROOT/share/xcat/netboot to take genimage from")
    require_message: bool = _setting("image", "require_message", False, "create needs -m MESSAGE")
    timeout: int = _setting("image", "timeout", 0, "seconds after which a program run by a build is ended; 0: never")
    install_docs: bool = _setting("image", "install_docs", True, "install the packages' documentation")
    install_locales: tuple[str, ...] = _setting(
        "image", "install_locales", (), "languages whose messages are installed; empty: all", pattern=LOCALE
    )
    package_manager_args: tuple[str, ...] = _setting(
        "image", "package_manager_args", (), "more arguments for dnf, yum or apt", pattern=ARGUMENT
    )
    rinse_packages: str = _setting("image", "rinse_packages", "", "what rinse unpacks first; default: by osvers")
    kernel: str = _setting("image", "kernel", "", "release of the kernel that nodes boot", pattern=WORD)
    kernel_suffix: str = _setting("image", "kernel_suffix", "", "what follows that release", (), r"[A-Za-z0-9_.+-]*")
    interface: str = _setting("image", "interface", "", "network interface that nodes boot from", pattern=WORD)
    net_modules: tuple[str, ...] = _setting("image", "net_modules", (), "network drivers in the initrd", pattern=WORD)
    storage_modules: tuple[str, ...] = _setting(
        "image", "storage_modules", (), "storage drivers in the initrd", pattern=WORD
    )
    filesystem_modules: tuple[str, ...] = _setting(
        "image", "filesystem_modules", (), "file systems in the initrd", (), WORD
    )
    root_size: str = _setting("image", "root_size", "", "most that the nodes' root file system may hold", pattern=SIZE)
    refuse_stored_secrets: bool = _setting(
        "image", "refuse_secrets", False, "commit no image with a secret that [secrets] does not allow"
    )
    module_signing_key: str = _setting("image", "module_signing_key", "", "private key that signs kernel modules")
    module_signing_certificate: str = _setting("image", "module_signing_certificate", "", "certificate of that key")
    system_name: str = _setting("image", "system_name", "", "what the cluster is called", pattern=WORD)
    packer: str = _setting(
        "pack", "packer", "auto", "what packs: packimage (where xCAT is), or own", ("auto", "packimage", "own")
    )
    method: str = _setting(
        "pack", "method", "auto", "form of the root image archive; auto: cpio, or tar for xattrs", ("auto", "cpio", "tar", "squashfs")
    )  # fmt: skip
    compress: str = _setting(
        "pack", "compress", "auto", "its compression; auto: gzip, or packimage's own", ("auto", "gzip", "pigz", "zstd", "xz")
    )  # fmt: skip
    refuse_secrets: bool = _setting(
        "pack", "refuse_secrets", True, "serve no image with a secret that [secrets] does not allow"
    )
    secrets: tuple[AllowedSecret, ...] = dataclasses.field(
        default=MADE_BY_PACKAGES, metadata={"help": "[secrets]: which may be in an image, and why"}
    )
    require_signature: tuple[str, ...] = _setting(
        "pack", "require_signature", (), "osimages that serve nothing but tags with a good signature: patterns, or yes for all", pattern=GLOB
    )  # fmt: skip
    require_boot: tuple[str, ...] = _setting(
        "pack", "require_boot", (), "osimages that serve nothing but tags that have booted: patterns, or yes for *.prod", pattern=GLOB
    )  # fmt: skip
    boot_success: str = _setting(
        "boot", "success", "", "what of the console says that it has booted: a regular expression"
    )
    boot_units: tuple[str, ...] = _setting("boot", "units", (), "units that must not fail: patterns", pattern=UNIT)
    boot_timeout: int = _setting("boot", "timeout", 600, "seconds that it may take")
    boot_memory: int = _setting("boot", "memory", 0, "memory of the virtual machine in MiB; 0: by what the set holds")
    boot_arguments: str = _setting("boot", "arguments", "", "more arguments for the kernel")
    sign_key: str = _setting("sign", "key", "", "what signs each tag: a key of gpg, or the path of an ssh key")
    allowed_signers: str = _setting("sign", "allowed_signers", "", "who may sign by ssh, and by which keys")
    keyring: str = _setting("sign", "keyring", "", "the public keys of those who may sign by gpg")
    os_names: OsNames = dataclasses.field(default=(), metadata={"help": "[osvers]: a site's own distributions, and what they are like"})  # fmt: skip


FILES = ("rinse_packages", "module_signing_key", "module_signing_certificate")
OPTIONAL_PATHS = (
    "definitions", "installdir", "tftpdir", "allowed_signers", "keyring", *FILES,
)  # fmt: skip
FIELDS = {
    (f.metadata["section"], f.metadata["name"]): f for f in dataclasses.fields(Settings) if "section" in f.metadata
}
SECRETS, OSVERS = "secrets", "osvers"  # the sections whose names are the site's own
SECTIONS = (*dict.fromkeys(section for section, _ in FIELDS), SECRETS, OSVERS)


def read_ini(path: Path) -> configparser.ConfigParser:
    """An ini file without interpolation; ` # comment` may follow a value."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",), default_section="\0")
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    try:
        with open(path, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (configparser.Error, UnicodeDecodeError) as err:
        raise AvsError(f"{path} is not an ini file: {' '.join(str(err).split())}") from None
    except OSError as err:
        raise AvsError(f"{path}: {err.strerror}") from None
    return parser


def typed(text: str, default: object, what: str, choices: tuple[str, ...] = ()) -> Any:
    """text as the type of default: bool, int, Path, tuple (comma list) or str."""
    text = text.strip()
    if isinstance(default, bool):
        states = configparser.ConfigParser.BOOLEAN_STATES
        if text.lower() not in states:
            raise AvsError(f"{what} is {text!r}; it takes yes or no")
        return states[text.lower()]
    if isinstance(default, int):
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise AvsError(f"{what} is {text!r}; it takes a whole number")
        return int(text)
    if isinstance(default, Path):
        if not text.startswith("/"):
            raise AvsError(f"{what} is {text!r}; it takes an absolute path")
        return Path(text)
    if isinstance(default, (tuple, list)):
        return tuple(item for item in text.replace("\n", ",").replace(" ", ",").split(",") if item)
    if choices and text not in choices:
        raise AvsError(f"{what} is {text!r}; it takes {', '.join(choices)}{nearest(text, choices)}")
    return text


def overlay_settings(settings: Settings, values: Mapping[str, Mapping[str, str]], origin: str) -> Settings:
    """settings with the sections of one file laid over them; unknown names are errors."""
    changes: dict[str, Any] = {}
    for section, items in values.items():
        if section not in SECTIONS:
            raise AvsError(
                f"{origin}: unknown section [{section}]{nearest(section, SECTIONS)}; there are {', '.join(SECTIONS)}"
            )
        if section == OSVERS:
            changes["os_names"] = _os_names(settings.os_names, items, origin)
            continue
        if section == SECRETS:
            changes["secrets"] = _secrets(settings.secrets, items, origin)
            continue
        for name, text in items.items():
            field = FIELDS.get((section, name))
            if field is None:
                homes = [home for home, other in FIELDS if other == name]
                hint = (
                    f"; it belongs in [{homes[0]}]" if homes else nearest(name, [n for s, n in FIELDS if s == section])
                )
                raise AvsError(f"{origin}: unknown setting {name!r} in [{section}]{hint}")
            what = f"{origin}: [{section}] {name}"
            value = typed(text, field.default, what, field.metadata["choices"])
            if field.name in OPTIONAL_PATHS and value and not value.startswith("/"):
                raise AvsError(f"{what} is {value!r}; it takes an absolute path")
            _refuse_unfit(value, field.metadata["pattern"], what)
            changes[field.name] = value
    return dataclasses.replace(settings, **changes)


def _refuse_unfit(value: Any, pattern: str, what: str) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if pattern and item and not re.fullmatch(pattern, item):
            form = (
                "a size such as 2g"
                if pattern == SIZE
                else "arguments that begin with -"
                if pattern == ARGUMENT
                else "names"
            )
            raise AvsError(f"{what} has {item!r}; it takes {form}, of plain characters only")


def _os_names(names: OsNames, items: Mapping[str, str], origin: str) -> OsNames:
    """names with those of one file; an empty value takes a name away."""
    for name, like in items.items():
        try:
            if like:
                check_os_name(name, like)
        except AvsError as err:
            raise err.prefixed(f"{origin}: [{OSVERS}] ") from None
    return tuple((name, like) for name, like in {**dict(names), **items}.items() if like)


def _secrets(allowed: tuple[AllowedSecret, ...], items: Mapping[str, str], origin: str) -> tuple[AllowedSecret, ...]:
    """What is allowed with what one file allows; an empty reason takes an entry away."""
    entries = {item[:2]: item for item in allowed}
    for name, reason in items.items():
        words = name.split()
        if len(words) != 2 or not words[1].startswith(("/", "**/")):
            raise AvsError(f"{origin}: [{SECRETS}] has {name!r}; it takes lines KIND /PATH = REASON")
        if not reason and (words[0], words[1]) not in entries:
            raise AvsError(f"{origin}: [{SECRETS}] {name} has no reason, without which nothing is allowed")
        entries[words[0], words[1]] = (words[0], words[1], " ".join(reason.split()), origin)
    return tuple(item for item in entries.values() if item[2])


def sections(parser: configparser.ConfigParser) -> dict[str, dict[str, str]]:
    """The parsed file as plain dictionaries."""
    return {section: dict(parser.items(section)) for section in parser.sections()}


def share_dir() -> Path:
    """The shipped defaults: beside the package in a checkout, else below the prefix, else xCAT's."""
    checkout = Path(__file__).resolve().parent.parent / "share/xcat/avs"
    candidates = [
        checkout,
        Path(sys.prefix) / "share/xcat/avs",
        Path(os.environ.get("XCATROOT", "/opt/xcat")) / "share/xcat/avs",
    ]
    for candidate in candidates:
        if (candidate / "avs.conf").is_file():
            return candidate.resolve()
    raise AvsError(f"the shipped defaults are not installed; looked in {', '.join(map(str, candidates))}")


def refuse_writable(image: OsImage, settings: Settings) -> None:
    """Refuse a file that the definition or a setting names, and that others than root may change."""
    named = [Path(getattr(settings, name)) for name in FILES if getattr(settings, name)]
    for path in (*image.named_files(), *named):
        trust.refuse(path)


def _layered(settings: Settings, paths: Iterable[Path], required: bool) -> Settings:
    for path in paths:
        if required or path.exists():
            if not path.is_relative_to(share_dir()):
                trust.refuse(path)
            settings = overlay_settings(settings, sections(read_ini(path)), str(path))
    return settings


def load_settings() -> Settings:
    """shipped -> /etc/xcat/avs.conf; AVS_CONF is read instead of the latter. Raises AvsError on a bad file."""
    settings = _layered(Settings(), [share_dir() / "avs.conf"], required=True)
    only = os.environ.get("AVS_CONF", "")
    if only:
        return _layered(settings, [Path(only)], required=True)
    return _layered(settings, [ETC_CONF], required=False)


def load_site_settings(settings: Settings, installdir: Path) -> Settings:
    """settings with those of INSTALLDIR/custom/avs/avs.conf over them, but where AVS_CONF says what to read."""
    if os.environ.get("AVS_CONF", ""):
        return settings
    return _layered(settings, [installdir / "custom/avs/avs.conf"], required=False)

"""What it means that `ostree pull` fails, by what it prints with libcurl or libsoup, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

CURL = re.compile(r"\[(\d+)\] (.*)")
HTTP = re.compile(r"\b(?:HTTP|status) (\d{3})\b")
CERTIFICATES = {"35", "51", "53", "54", "58", "60", "66", "77", "80", "82", "83", "90", "91"}
CERTIFICATE = re.compile(r"(?i)\bcertificate\b|\bTLS\b|\bSSL\b")
MODE = re.compile(r"Can't pull from archives with mode \"?([\w-]+)")
NO_SUMMARY = re.compile(r"does not have a summary|has no summary")
SILENT = re.compile(r"\[(?:5|6|7|28)\] |(?i:could not connect|resolving|refused|unreachable|timed out)")
BROKEN = re.compile(r"\[(?:16|18|52|55|56|92|95)\] |(?i:terminated|closed|reset)")
DAMAGED = re.compile(r"(?i)corrupt|checksum|zlib|decompress")


def meaning(stderr: str, url: str, cache: Path) -> str:
    """What it means and what to do; "" where nothing is known of it."""
    curl, http = CURL.search(stderr), HTTP.search(stderr)
    reason = f" ({curl.group(2)})" if curl else ""
    if (curl and curl.group(1) in CERTIFICATES) or (not curl and not http and CERTIFICATE.search(stderr)):
        return (f"its certificate is not accepted{reason}: add the authority of the site to those of this machine, or name it by "
                f"{_setting(cache, 'tls-ca-path', '/etc/pki/site.pem')}")  # fmt: skip
    if http:
        return _answered(http.group(1), url, cache)
    if found := MODE.search(stderr):
        return (f"it is of the mode {found.group(1)}, which cannot be pulled by http: where it is made, keep a mirror of it by "
                "`ostree config --repo=DIR set avs.mirror /srv/www/images`, and have the web server hand out that")  # fmt: skip
    if SILENT.search(stderr):
        return f"it does not answer{reason}: is the web server running, and are scheme, host and port of the URL right?"
    if BROKEN.search(stderr):
        return (
            f"the server went away meanwhile{reason}; what was pulled is kept, and the same command goes on from there"
        )
    if DAMAGED.search(stderr):
        return "what it hands out is damaged: `ostree fsck` on the server says what; nothing of it was taken"
    return ""


def _setting(cache: Path, key: str, value: str) -> str:
    """The command that sets how the server is talked to."""
    return f"`ostree config --repo={cache} set 'remote \"avs\".{key}' {value}`"


def _answered(code: str, url: str, cache: Path) -> str:
    """What an error of HTTP means."""
    if code in ("401", "403"):
        return (f"it forbids this (HTTP {code}): let the rules of the web server admit this machine; a client certificate is named by "
                f"{_setting(cache, 'tls-client-cert-path', 'FILE')} and tls-client-key-path")  # fmt: skip
    if code in ("404", "410"):
        return (f"it answers HTTP {code}: is {url} the mirror itself, the directory with `config` and `summary`? Where it is, some of it is missing: "
                "empty it where images are committed (`find DIR -mindepth 1 -delete`), and the next create or tag there makes it anew, "
                "and `ostree summary --repo=DIR -u` there the summary")  # fmt: skip
    if code[0] == "5":
        return f"the server itself failed (HTTP {code}); its error log says why"
    return f"it answers HTTP {code}"

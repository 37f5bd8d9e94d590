"""The secrets gate of a pack: what nodes would be served, and anyone could read with them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xcat_avs.definitions import exlist
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack.job import PackJob
from xcat_avs.report import Report
from xcat_avs.store.protocol import PROVENANCE
from xcat_avs.system.descent import read_file
from xcat_avs.tree import gate, secrets
from xcat_avs.tree.gate import Allowed
from xcat_avs.tree.secrets import Finding

# What may be in an image whose build had these steps and these add-ons.
Declared = Callable[[OsImage, Iterable[str], Iterable[str]], Sequence[Allowed]]


class RefusedError(AvsError):
    """An image is not served for what is in it. report: all that was found."""

    report: Report = Report()


@dataclass(frozen=True)
class Gate:
    """Looks at the checkout of a tag. found: what was found, for the answer."""

    job: PackJob
    image: OsImage
    declared: Declared
    found: list[Finding] = field(default_factory=list)

    def look(self, checkout: Path) -> None:
        """Find and judge; warn of what is not allowed, or raise AvsError for it. What the exlist leaves out is not served."""
        build = _document(checkout, PROVENANCE)
        host = build.get("host") if isinstance(build, dict) else None
        hosts = {socket.gethostname(), str(host or "")}
        findings = secrets.find_in_version(checkout, hosts)
        kept = {*exlist.select([item.path for item in findings], self.job.excluded, self.job.included)}
        findings = [item for item in findings if item.addon or item.path in kept]
        allowed = [
            *self.declared(self.image, *(_names(checkout, name) for name in ("steps", "addons"))),
            *self.job.secrets,
        ]
        gate.check(allowed)
        self.found[:] = gate.judge(findings, allowed)
        if self.job.refuse_secrets and gate.refused(self.found):
            error = gate.refusal(self.found, f"{self.job.target.image.name}: the image", "nothing was published")
            failed = RefusedError(error.text, error.tail)
            failed.report = Report(document={"secrets": gate.document(self.found)})
            raise failed
        for text in gate.warnings(self.found):
            self.job.progress.warn(f"{self.job.target.image.name}: {text}")

    def put_by_packimage(self, by_design: dict[str, str]) -> None:
        """Note what packimage has put in, which is served as well."""
        if "etc/shadow" in by_design:
            self.found.append(Finding("password-hash", "etc/shadow", allowed=by_design["etc/shadow"], by="packimage"))


def _names(checkout: Path, kind: str) -> list[str]:
    """The steps or add-ons that a version was built by."""
    found = _document(checkout, f"build_info/{kind}.json")
    rows = found if isinstance(found, list) else []
    return [str(row["name"]) for row in rows if isinstance(row, dict) and "name" in row]


def _document(checkout: Path, path: str) -> Any:
    """A JSON file of a checkout; None where it is not there or damaged."""
    try:
        return json.loads(read_file(str(checkout), path) or b"")
    except (ValueError, RecursionError):
        return None

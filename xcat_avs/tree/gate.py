"""Judge the secrets that were found in a tree: which of them are allowed, by whom and why, and how all are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xcat_avs.errors import AvsError, nearest
from xcat_avs.tree.patterns import lies_in
from xcat_avs.tree.secrets import HARMLESS, KINDS, Finding

# What allows secrets: kind, pattern of paths (patterns.lies_in), reason, and who says so.
Allowed = tuple[str, str, str, str]
SHOWN = 40  # lines of an error


def check(allowed: Iterable[Allowed]) -> None:
    """Raise AvsError for a kind that there is not, naming who has it."""
    for kind, _, _, by in allowed:
        if kind not in KINDS:
            raise AvsError(f"{by}: unknown kind of secret {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")


def judge(findings: Iterable[Finding], allowed: Sequence[Allowed]) -> list[Finding]:
    """The findings, each with the last of what allows it, if anything does."""
    judged = []
    for finding in findings:
        for kind, pattern, reason, by in allowed:
            if kind == finding.kind and lies_in(finding.path, pattern):
                finding = finding._replace(allowed=reason, by=by)
        judged.append(finding)
    return judged


def refused(findings: Iterable[Finding]) -> list[Finding]:
    """Those that nothing allows, and that are worth a refusal."""
    return [finding for finding in findings if not finding.allowed and finding.kind not in HARMLESS]


def lines(findings: Iterable[Finding]) -> list[str]:
    """A line each: kind, path, and what allows it."""
    items = list(findings)
    width = max((len(item.kind) for item in items), default=0)
    return [f"{item.kind:{width}}  {where(item)}{_why(item)}" for item in items]


def where(finding: Finding) -> str:
    return f"/{finding.path}" + (f" of the add-on {finding.addon}" if finding.addon else "")


def _why(finding: Finding) -> str:
    if finding.allowed:
        return f"  allowed: {finding.allowed} ({finding.by})"
    return f"  ({KINDS[finding.kind]})" if finding.kind in HARMLESS else ""


def document(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    return [{**finding._asdict(), "path": f"/{finding.path}"} for finding in findings]


def warnings(findings: Sequence[Finding]) -> list[str]:
    """What to warn of, a sentence a kind."""
    found = []
    for kind, meaning in KINDS.items():
        places = [where(item) for item in findings if item.kind == kind and not item.allowed]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        if places:
            missing = kind in HARMLESS
            text = (
                f"there is no {places[0]}: {meaning}"
                if missing
                else f"{kind} in {', '.join(places[:3])}{more}: {meaning}"
            )
            found.append(text)
    return found


def refusal(findings: Sequence[Finding], what: str, outcome: str) -> AvsError:
    """The error for those that are refused. what: the image or tag; outcome: what came of it."""
    shown = lines(refused(findings))
    rest = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    advice = "take them out of it, or allow each in [secrets] of avs.conf or of its recipe, with a reason, as `KIND /PATH = REASON`"
    return AvsError(f"{what} holds secrets; {outcome}: {advice}".replace("`", "'"), [*shown[:SHOWN], *rest])

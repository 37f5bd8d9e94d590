"""What the command line asks for."""

from __future__ import annotations

from dataclasses import dataclass

EVERY_FILE = "*"  # what --files means without a PATTERN


@dataclass(frozen=True)
class Request:
    """The command line, every option that there is; empty where not given."""

    mode: str = ""
    image: str = ""
    profile: str = ""
    osvers: str = ""
    osarch: str = ""
    store: str = ""
    tag: str = ""
    revision: str = ""
    message: str = ""
    user: str = ""
    resume: bool = False
    source: str = ""
    base: bool = False
    finish: bool = False
    masquerade: str = ""
    method: str = ""
    compress: str = ""
    define: bool = False
    new_store: bool = False
    nodeset: bool = False
    live: bool = False
    force: bool = False
    deep: bool = False
    fast: bool = False
    packages: bool = False
    files: str = ""
    content: str = ""
    json: bool = False
    verbose: bool = False

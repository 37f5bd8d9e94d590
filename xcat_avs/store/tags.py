"""Find tags and revisions by the names on the command line, and make tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xcat_avs.definitions.osimage import OsImage, Tag, check_tag_name
from xcat_avs.errors import AvsError, NotFoundError, UsageError, nearest
from xcat_avs.identity import Identity
from xcat_avs.store.protocol import NewTag, Revision, Store, Version

LONGEST = 18  # digits of a revision number


def default_name(image: OsImage, identity: Identity) -> str:
    """YYYY-MM-DD-HH-MM-SS-RELEASE-by-USER, in local time."""
    user = re.sub(r"[^A-Za-z0-9._+-]", "-", identity.user)
    return f"{identity.stamp()}-{image.osvers}-by-{user}"


def find_revision(text: str, store: Store, image: OsImage) -> Revision:
    """The revision that -r names; the newest without it."""
    if text:
        number = text[1:] if text.startswith("r") else text
        if not (number.isascii() and number.isdigit()):
            raise UsageError(f"-r {text!r} is no revision number")
        if len(number) > LONGEST:
            raise NotFoundError(f"{image.name} has no revision {number}")
        return store.revision(image, int(number))
    head = store.head(image)
    if head is None:
        raise NotFoundError(f"{image.name} has no revision yet; build one with `avsimage -c create {image.profile}`")
    return head


def find_version(tag: str, revision: str, store: Store, image: OsImage) -> tuple[Version, int]:
    """The version that -t or -r names, the newest without them; and the revision of trunk that it holds."""
    if tag and revision:
        raise UsageError("give -t TAG or -r REV, not both")
    if tag:
        found = find_tag(tag, store, image)
        return Version(tag=found.name), found.source
    number = find_revision(revision, store, image).number
    return Version(revision=number), number


def find_tag(name: str, store: Store, image: OsImage) -> Tag:
    """The tag of that name. Raises NotFoundError with the nearest names."""
    return find_tags([name], store, image)[0]


def find_tags(names: Sequence[str], store: Store, image: OsImage) -> list[Tag]:
    """The tags of these names, with a single question to the store. Raises NotFoundError with the nearest names."""
    for name in names:
        check_tag_name(name)
    tags = {tag.name: tag for tag in store.tags(image)}
    for name in names:
        if name not in tags:
            hint = nearest(name, tags) or f"; `avsimage -c list-tags {image.profile}` lists them"
            raise NotFoundError(f"{image.name} has no tag {name!r}{hint}")
    return [tags[name] for name in names]


def new_tag(name: str, revision: Revision, identity: Identity, message: str) -> NewTag:
    """A tag of a revision that somebody makes. message: why, or ""."""
    first = f"{identity.user}; Tag of revision {revision.number}"
    return NewTag(
        name, revision.number, author=identity.user, message=f"{first}\n{message}".rstrip(), real=identity.real()
    )


def make_tag(store: Store, image: OsImage, new: NewTag) -> Tag:
    """Make the tag and return it as the store has it."""
    store.tag(image, new)
    for tag in store.tags(image):
        if tag.name == new.name:
            return tag
    raise AvsError(f"{image.name}: the store took the tag {new.name} and does not list it")

"""Remove the time zones but those of a list and the image's own"""

import os
from fnmatch import fnmatch

OPTIONS = {
    "keep": (
        ("UTC", "Etc/UTC", "*.tab", "tzdata.zi", "leap*"),
        "patterns of zones and tables that stay; a name without wildcards must be there",
    ),
    "localtime": (True, "keep the zone of /etc/localtime as well"),
}
TOP = "/usr/share/zoneinfo"


def run(ctx):
    top = ctx.inside(TOP)
    zones = {str(path.relative_to(top)): path for path in ctx.glob(f"{TOP}/**/*")}
    if not zones:
        ctx.say("no time zones in the image: nothing to remove")
        return
    missing = [name for name in ctx.options["keep"] if not set("*?[") & set(name) and name not in zones]
    if missing:
        ctx.fail(f"no time zone {', '.join(missing)} in {TOP} of the image; fix keep in the recipe")
    kept = {name for name in zones if any(fnmatch(name, pattern) for pattern in ctx.options["keep"])}
    if ctx.options["localtime"]:
        kept |= own_zones(ctx, top, zones)
    kept |= {str(end.relative_to(top)) for name in kept for end in chain(ctx, zones[name]) if top in end.parents}
    removed = 0
    for name, path in sorted(zones.items(), reverse=True):
        if path.is_symlink() or not path.is_dir():
            if name not in kept:
                path.unlink()
                removed += 1
        elif not any(path.iterdir()):
            path.rmdir()
    ctx.say(f"removed {removed} zones, kept {', '.join(sorted(kept))}")


def chain(ctx, path):
    """What a link of the image leads to, step by step, within the image."""
    found = []
    while path.is_symlink() and len(found) < 20:
        above = "/" + str(path.parent.relative_to(ctx.root))
        path = ctx.inside(os.path.join(above, os.readlink(path)))
        found.append(path)
    return found


def own_zones(ctx, top, zones):
    """The zone that /etc/localtime is a link to, or those that it is a copy of; and that of /etc/timezone."""
    localtime, timezone = ctx.inside("/etc/localtime"), ctx.inside("/etc/timezone")
    names = {str(end.relative_to(top)) for end in chain(ctx, localtime) if top in end.parents}
    if localtime.is_file() and not localtime.is_symlink():
        data = localtime.read_bytes()
        names |= {
            name
            for name, path in zones.items()
            if not path.is_symlink() and path.is_file() and path.read_bytes() == data
        }
    if timezone.is_file() and not timezone.is_symlink():
        names.add(timezone.read_text().strip())
    for name in sorted(names - zones.keys()):
        ctx.say(f"the image's own time zone {name} is not in {TOP}")
    return names & zones.keys()

"""Keep services from starting at boot"""

import difflib
import os
import re

OPTIONS = {
    "services": ((), "names of services or units"),
    "mask": (False, "keep them from being started by anything else as well"),
    "missing": ("error", "what a service that is not there is: error, or ignore"),
}
UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
SCRIPTS = ("/etc/init.d", "/etc/rc.d/init.d")


def run(ctx):
    units, scripts = set(), []
    for name in ctx.options["services"]:
        unit = name if "." in name else f"{name}.service"
        if find(ctx, UNITS, re.sub("@[^.]*", "@", unit)):
            units.add(unit)
        elif find(ctx, SCRIPTS, name):
            scripts.append(name)
        elif ctx.options["missing"] == "ignore":
            ctx.say(f"no service {name} in the image: left out")
        else:
            ctx.fail(unknown(ctx, name))
    if not units and not scripts:
        ctx.say("no services to disable: nothing to do")
    if units:
        refuse_links(ctx)
        # The preset holds when a package is installed or updated later.
        preset = "".join(f"disable {unit}\n" for unit in sorted(units))
        ctx.install_file(preset, "/etc/systemd/system-preset/10-avs-disable.preset")
        ctx.run(["systemctl", f"--root={ctx.root}", "disable", *sorted(units)])
        if ctx.options["mask"]:
            ctx.run(["systemctl", f"--root={ctx.root}", "mask", *sorted(units)])
        ctx.run(["systemctl", f"--root={ctx.root}", "is-enabled", *sorted(units)], check=False)  # for the log
    for name in scripts:
        if find(ctx, ("/sbin", "/usr/sbin"), "chkconfig"):
            ctx.chroot(["chkconfig", *(["--del", name] if ctx.options["mask"] else [name, "off"])])
        else:
            ctx.chroot(["update-rc.d", *(["-f", name, "remove"] if ctx.options["mask"] else [name, "disable"])])


def find(ctx, directories, name):
    return any(os.path.lexists(ctx.inside(f"{top}/{name}")) for top in directories)


def refuse_links(ctx):
    """systemctl --root would follow a link of the image to the host."""
    patterns = (
        "etc",
        "etc/systemd",
        "etc/systemd/system",
        "etc/systemd/system/*.wants",
        "etc/systemd/system/*.requires",
    )
    for path in [path for pattern in patterns for path in ctx.glob(pattern)]:
        if path.is_symlink():
            ctx.fail(f"/{path.relative_to(ctx.root)} of the image is a link; systemctl needs a directory there")


def unknown(ctx, name):
    """An error that names the services there are, the nearest first."""
    tops = [str(ctx.inside(f"{top}/x").parent) for top in UNITS + SCRIPTS]
    found = {entry for top in tops if os.path.isdir(top) for entry in os.listdir(top)}
    known = sorted({entry.replace(".service", "") for entry in found if entry.endswith(".service") or "." not in entry})
    close = difflib.get_close_matches(name, known, 3)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"no service {name} in the image{hint}; there are {', '.join(known)}"

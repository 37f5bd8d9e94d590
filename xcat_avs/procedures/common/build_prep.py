"""Install the site's hosts, localtime and resolver files"""

import re

OPTIONS = {
    "files": (
        ("hosts", "hosts.allow", "hosts.deny", "localtime", "resolv.conf"),
        "site files to put into /etc, where the site has them",
    ),
    "timezone": ("", "a time zone such as Europe/Warsaw, in place of the file localtime"),
    "nozeroconf": (True, "EL, Fedora: no route to 169.254.0.0/16, where there is a directory /etc/sysconfig"),
    "home": (True, "make sure there is a /home"),
}


def run(ctx):
    if not ctx.exists("/etc"):
        ctx.say("no /etc in the image: nothing to prepare")
        return
    found = {name: ctx.site_file(name) for name in ctx.options["files"]}
    for name, path in found.items():
        if path:
            ctx.install_file(path, f"/etc/{name}")
    if ctx.options["timezone"]:
        set_timezone(ctx, ctx.options["timezone"])
    if ctx.options["nozeroconf"] and ctx.image.version.family in ("el", "fedora") and ctx.exists("/etc/sysconfig"):
        ctx.set_values("/etc/sysconfig/network", {"NOZEROCONF": "yes"})
    home = ctx.inside("/home")
    if ctx.options["home"] and not home.is_dir() and not home.is_symlink():
        home.mkdir(mode=0o755)


def set_timezone(ctx, zone):
    plain = re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", zone)
    if not plain or not ctx.inside(f"/usr/share/zoneinfo/{zone}", follow=True).is_file():
        ctx.fail(f"the image has no time zone {zone!r} in /usr/share/zoneinfo; is the package tzdata in it?")
    ctx.remove("/etc/localtime")
    ctx.inside("/etc/localtime").symlink_to(f"../usr/share/zoneinfo/{zone}")
    if ctx.image.version.packages == "deb":
        ctx.install_file(f"{zone}\n", "/etc/timezone")
    elif ctx.exists("/etc/sysconfig/clock"):  # EL 5 and 6 copy the zone to /etc/localtime at updates
        ctx.set_values("/etc/sysconfig/clock", {"ZONE": f'"{zone}"'})

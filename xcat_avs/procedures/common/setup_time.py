"""Set up chrony or ntpd with the site's time servers"""

import re

OPTIONS = {
    "servers": ((), "time servers, in place of those of the package's configuration"),
    "daemon": (
        "auto",
        "chrony, ntp, or auto: the one that is in the image, else chrony (EL 5 and 6: ntp)",
        ("auto", "chrony", "ntp"),
    ),
}
# daemon -> package family -> configuration file, service; of Debian's two names of ntpd the newer first
KNOWN = {
    ("chrony", "rpm"): [("/etc/chrony.conf", "chronyd")],
    ("chrony", "deb"): [("/etc/chrony/chrony.conf", "chrony")],
    ("ntp", "rpm"): [("/etc/ntp.conf", "ntpd")],
    ("ntp", "deb"): [("/etc/ntpsec/ntp.conf", "ntpsec"), ("/etc/ntp.conf", "ntp")],
}
RIVALS = {
    "chrony": ("ntpsec", "ntp", "ntpd", "systemd-timesyncd"),
    "ntp": ("chrony", "chronyd", "systemd-timesyncd"),
}
PROGRAMS = {"chrony": "/usr/sbin/chronyd", "ntp": "/usr/sbin/ntpd"}
FRESH = {
    "chrony": "driftfile /var/lib/chrony/drift\nmakestep 1.0 3\nrtcsync\n",
    "ntp": "driftfile /var/lib/ntp/drift\nrestrict default nomodify notrap nopeer noquery\nrestrict 127.0.0.1\n",
}


def run(ctx):
    version, kind = ctx.image.version, ctx.options["daemon"]
    if kind == "auto":
        old = version.family == "el" and int(version.major) <= 6
        there = [name for name, program in PROGRAMS.items() if ctx.exists(program)]
        kind = there[0] if there else "ntp" if old else "chrony"
    if not ctx.exists(PROGRAMS[kind]):
        ctx.install_packages(kind)
    choices = KNOWN[kind, version.packages]
    config, service = next((item for item in choices if ctx.has_service(item[1])), choices[0])
    site = ctx.site_file(f"{kind}.conf")
    if site:
        ctx.install_file(site, config)
    elif ctx.options["servers"]:
        ctx.edit(config, lambda text: with_servers(text or FRESH[kind], ctx.options["servers"]))
    else:
        ctx.say(f"neither a site file {kind}.conf nor servers: {config} is left as the package brought it")
    ctx.service(service)
    for rival in RIVALS[kind]:
        if ctx.has_service(rival):
            ctx.service(rival, enable=False)


def with_servers(text, servers):
    """text with these servers, and none of those that it had."""
    rest = re.sub(r"^[ \t]*(?:server|pool|peer)[ \t].*\n?", "", text, flags=re.MULTILINE)
    return "".join(f"server {name} iburst\n" for name in servers) + rest

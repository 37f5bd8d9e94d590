"""Set up gmond, which tells Ganglia how a node does"""

import re

OPTIONS = {
    "cluster": ("", "name of the cluster"),
    "host": ("", "host or multicast group that gmond sends to"),
    "port": (8649, "its port"),
}
CONFIG = "/etc/ganglia/gmond.conf"


def run(ctx):
    deb = ctx.image.version.packages == "deb"  # EL has the package in EPEL
    ctx.install_packages("ganglia-monitor" if deb else "ganglia-gmond")
    site = ctx.site_file("gmond.conf")
    if site:
        ctx.install_file(site, CONFIG)
    else:
        ctx.edit(CONFIG, lambda text: changed(ctx, text))
    ctx.service("ganglia-monitor" if deb else "gmond")


def changed(ctx, text):
    """gmond.conf with the name of the cluster and the one channel to send by."""
    cluster, host, port = ctx.options["cluster"], ctx.options["host"], ctx.options["port"]
    if cluster:
        pattern = r'^([ \t]*cluster[ \t]*\{[^}]*?\bname[ \t]*=[ \t]*)"[^"\n]*"'
        text, count = re.subn(pattern, lambda match: f'{match.group(1)}"{cluster}"', text, flags=re.MULTILINE)
        if count != 1:
            ctx.fail(f"{CONFIG} of the package has no one cluster {{ name = ... }}; give a site file gmond.conf")
    if host:
        word = "mcast_join" if re.match(r"(22[4-9]|23\d)\.", host) else "host"
        text = re.sub(r"^[ \t]*udp_send_channel[ \t]*\{[^}]*\}[ \t]*\n", "", text, flags=re.MULTILINE)
        text += f"udp_send_channel {{\n  {word} = {host}\n  port = {port}\n  ttl = 1\n}}\n"
    return text

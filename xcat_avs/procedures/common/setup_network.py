"""Have each wired interface of a node get its address by DHCP, where no xCAT sets it up"""

OPTIONS = {
    "interfaces": (("e*",), "patterns of their names"),
}
FILE = "avs-dhcp"


def run(ctx):
    patterns = ctx.options["interfaces"]
    if not patterns:
        ctx.fail("[setup_network] interfaces names none")
    if ctx.exists("/sbin/ifup") and ctx.image.version.packages == "deb":
        # As ifupdown has patterns: those that match are set up as the stanza of that name says.
        lines = [f"auto /{pattern}={FILE}\n" for pattern in patterns]
        ctx.install_file("".join([*lines, f"iface {FILE} inet dhcp\n"]), f"/etc/network/interfaces.d/{FILE}")
    elif ctx.has_service("NetworkManager"):
        ctx.say("NetworkManager asks for an address on each wired interface by itself")
        ctx.service("NetworkManager")
    elif ctx.has_service("systemd-networkd"):
        text = f"[Match]\nName={' '.join(patterns)}\n\n[Network]\nDHCP=yes\n"
        ctx.install_file(text, f"/etc/systemd/network/80-{FILE}.network")
        ctx.service("systemd-networkd")
    else:
        ctx.fail(
            "the image has neither ifupdown (Debian, Ubuntu), NetworkManager nor systemd-networkd; add one to its pkglist"
        )

"""Have each wired interface of a node get its address by DHCP, where no xCAT sets it up"""

OPTIONS = {
    "interfaces": (("e*",), "patterns of their names, for systemd-networkd"),
}
FILE = "/etc/systemd/network/80-avs-dhcp.network"


def run(ctx):
    patterns = ctx.options["interfaces"]
    if not patterns:
        ctx.fail("[setup_network] interfaces names none")
    # ifupdown only sees the interfaces that are there when it starts, and by their names.
    if ctx.has_service("NetworkManager"):
        ctx.say("NetworkManager asks for an address on each wired interface by itself")
        ctx.service("NetworkManager")
    elif ctx.has_service("systemd-networkd"):
        ctx.install_file(f"[Match]\nName={' '.join(patterns)}\n\n[Network]\nDHCP=yes\n", FILE)
        ctx.service("systemd-networkd")
    else:
        ctx.fail("the image has neither NetworkManager nor systemd-networkd; add one to its pkglist")

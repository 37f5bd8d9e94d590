"""Set up sshd: its options, that it starts, and that each node has host keys"""

import re

OPTIONS = {
    "permit_root_login": ("", "PermitRootLogin, such as prohibit-password; empty, here and below: as the image has it"),
    "password_authentication": ("", "PasswordAuthentication, yes or no", ("", "yes", "no")),
    "x11_forwarding": ("", "X11Forwarding, yes or no", ("", "yes", "no")),
    "use_dns": ("", "UseDNS, yes or no", ("", "yes", "no")),
    "max_startups": ("", "MaxStartups, such as 100:30:300 for many connections at once"),
    "settings": ((), "KEYWORD=VALUE for any other keyword of sshd_config(5)"),
    "host_keys": (
        True,
        "where the distribution makes none at boot (Debian, Ubuntu): have a node without host keys make its own",
    ),
    "check": (True, "have the image's own sshd say whether it can read the result"),
}
KEYWORDS = {
    "permit_root_login": "PermitRootLogin",
    "password_authentication": "PasswordAuthentication",
    "x11_forwarding": "X11Forwarding",
    "use_dns": "UseDNS",
    "max_startups": "MaxStartups",
}
CONFIG, DIRECTORY = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
# A host key that is gone afterwards: sshd reads nothing without one.
CHECK = "mkdir -p /run/sshd && ssh-keygen -q -t rsa -N '' -f /run/avs_key && /usr/sbin/sshd -t -h /run/avs_key"
# An image without keys is right, for all nodes would have the same; but sshd does not start without one.
KEYS_UNIT = """[Unit]
Description=Make the ssh host keys of this node
Before=ssh.service sshd.service
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target {service}
"""
KEYS = "avs-ssh-host-keys.service"


def run(ctx):
    version = ctx.image.version
    ctx.install_packages("openssh" if version.family == "sles" else "openssh-server")
    site = ctx.site_file("sshd_config")
    if site:
        ctx.say("the site's sshd_config holds, not the options")
        ctx.install_file(site, CONFIG, mode=0o600)
    else:
        configure(ctx)
    if ctx.options["check"]:
        ctx.chroot(["sh", "-c", CHECK])
    if not ctx.exists("/etc/systemd/system/sockets.target.wants/ssh.socket"):  # newer Ubuntu starts it by its socket
        ctx.service("ssh" if version.packages == "deb" else "sshd")
    if ctx.options["host_keys"]:
        make_host_keys(ctx)


def make_host_keys(ctx):
    """Have a unit of ours make them, where sshd has a unit and that one has no way of its own."""
    service = "ssh.service" if ctx.unit("ssh.service") else "sshd.service"
    unit = ctx.unit(service)
    if unit and not re.search("keygen|gen-keys", unit):
        ctx.install_file(KEYS_UNIT.format(service=service), f"/etc/systemd/system/{KEYS}")
        ctx.service(KEYS)


def configure(ctx):
    values = {word: ctx.options[name] for name, word in KEYWORDS.items() if ctx.options[name]}
    for item in ctx.options["settings"]:
        key, _, value = item.partition("=")
        if not key or not value:
            ctx.fail(f"[setup_sshd] settings: {item!r} is not KEYWORD=VALUE")
        values[key] = value
    lines = "".join(f"{key} {value}\n" for key, value in values.items())
    included = re.search(rf"^\s*Include\s+{DIRECTORY}/\*\.conf", ctx.read(CONFIG), re.MULTILINE | re.IGNORECASE)
    if included and lines:
        # sshd takes the first value that it reads, and 00 is read before what packages put there.
        ctx.install_file(lines, f"{DIRECTORY}/00-avs.conf", mode=0o600)
    elif included:
        ctx.remove(f"{DIRECTORY}/00-avs.conf")
    else:
        ctx.edit(CONFIG, lambda text: lines + without(text, values))


def without(text, keys):
    """sshd_config without these keywords, but for what stands in Match blocks."""
    words = {key.lower() for key in keys}
    head, match, rest = re.match(r"(.*?)(^\s*Match\s|\Z)(.*)", text, re.DOTALL | re.MULTILINE | re.IGNORECASE).groups()
    kept = [line for line in head.splitlines(True) if re.split(r"[\s=]", line.strip() + " ")[0].lower() not in words]
    return "".join(kept) + match + rest

"""Set up the Nagios remote plugin executor"""

OPTIONS = {
    "allowed_hosts": ((), "addresses that may ask, in place of those of nrpe.cfg"),
    "plugins": ((), "packages of plugins to add"),
}
# family -> package, configuration, service; EL has the package in EPEL
KNOWN = {
    "deb": ("nagios-nrpe-server", "/etc/nagios/nrpe.cfg", "nagios-nrpe-server"),
    "sles": ("nrpe", "/etc/nrpe.cfg", "nrpe"),
    "rpm": ("nrpe", "/etc/nagios/nrpe.cfg", "nrpe"),
}


def run(ctx):
    version = ctx.image.version
    package, config, service = KNOWN.get(version.family, KNOWN[version.packages])
    ctx.install_packages(package, *ctx.options["plugins"])
    site = ctx.site_file("nrpe.cfg")
    if site:
        ctx.install_file(site, config)
    if ctx.options["allowed_hosts"]:
        ctx.set_values(config, {"allowed_hosts": ",".join(ctx.options["allowed_hosts"])})
    ctx.service(service)

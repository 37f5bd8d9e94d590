"""Add MongoDB, of a given version"""

import re

OPTIONS = {
    "version": ("7.0", "the release whose repository is taken, for example 7.0"),
    "repository": ("", "a repository to take it from, instead of the project's"),
    "packages": (("mongodb-org",), "packages to install"),
    "dbpath": ("", "where it keeps the data; its default is in a node's memory"),
    "bind_ip": ("", "addresses that it listens at, separated by commas; its default is this machine alone"),
}
CONFIG = "etc/mongod.conf"


def run(ctx):
    with ctx.repository(ctx.options["repository"] or repository(ctx)) as lent:
        lent.install_packages(*ctx.options["packages"])
    text = ctx.read(CONFIG)
    for key, name in (("dbPath", "dbpath"), ("bindIp", "bind_ip")):
        value = ctx.options[name]
        if value:
            text, count = re.subn(rf"^(\s+{key}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
            if count != 1:
                ctx.fail(
                    f"/{CONFIG} of the package has no one line {key}: to be set to {value}; leave [addon mongodb] {name} empty"
                )
    ctx.install_file(text, CONFIG)
    ctx.service("mongod")


def repository(ctx):
    """The project's repository for the image."""
    version, image = ctx.options["version"], ctx.image.version
    if image.packages == "rpm":
        return f"https://repo.mongodb.org/yum/redhat/{image.major}/mongodb-org/{version}/{ctx.image.osarch}/"
    release = ctx.read("usr/lib/os-release")
    suite = re.findall(r"^VERSION_CODENAME=\"?(\w+)", release, flags=re.MULTILINE)[0]
    component = "main" if image.distribution == "debian" else "multiverse"
    return f"https://repo.mongodb.org/apt/{image.distribution} {suite}/mongodb-org/{version} {component}"

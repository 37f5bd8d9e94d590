"""Install the site's apt sources and keyrings"""

import re

PACKAGES = "deb"
OPTIONS = {
    "mirrors": ((), "URLs of repositories; default: those that pkgdir of the definition names"),
    "suite": ("", "their suite; default: the image's own release"),
    "components": ((), "their components; default: main, of Ubuntu universe as well"),
    "updates": (False, "their suite SUITE-updates as well, and of Ubuntu SUITE-security"),
    "keep": (False, "keep the sources that are in the image"),
    "upgrade": (False, "then bring all packages to the newest version in the sources"),
}
DIRECTORIES = {"sources.list.d": ("*.list", "*.sources"), "trusted.gpg.d": ("*.gpg", "*.asc"), "keyrings": ("*",)}


def run(ctx):
    if ctx.image.version.packages != "deb":
        ctx.say(f"{ctx.image.osvers} has no apt sources: nothing to do")
        return
    site = {
        f"/etc/apt/{directory}/{path.name}": path
        for directory, patterns in DIRECTORIES.items()
        for pattern in patterns
        for path in ctx.site_files(f"{directory}/{pattern}")
    }
    if ctx.site_file("sources.list"):
        site["/etc/apt/sources.list"] = ctx.site_file("sources.list")
    sources = {target: path for target, path in site.items() if "/sources.list" in target}
    lines = [] if sources else from_options(ctx)
    if not sources and not lines:
        ctx.say("neither the site nor pkgdir names apt sources for nodes: sources left as they are")
    elif not ctx.options["keep"]:
        for pattern in ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"):
            for path in ctx.glob(f"etc/apt/{pattern}"):
                path.unlink()
    for target, path in site.items():
        ctx.install_file(path, target)
    if lines:
        target = "/etc/apt/sources.list.d/avs.list" if ctx.options["keep"] else "/etc/apt/sources.list"
        ctx.install_file("".join(f"{line}\n" for line in lines), target)
    if ctx.options["upgrade"]:
        ctx.upgrade_packages()


def from_options(ctx):
    """Lines of a sources.list; a directory of the build host is no source for a node."""
    items = [item.split() for item in ctx.image.attributes.get("pkgdir", "").split(",")]
    mirrors = [[url] for url in ctx.options["mirrors"]] or [item for item in items if item and "://" in item[0]]
    ubuntu = ctx.image.version.family == "ubuntu"
    components = " ".join(ctx.options["components"] or (("main", "universe") if ubuntu else ("main",)))
    more = (["-updates", "-security"] if ubuntu else ["-updates"]) if ctx.options["updates"] else []
    lines = []
    for url, *own in mirrors:
        if own:  # pkgdir may say `URL SUITE COMPONENT...`
            lines.append(f"deb {url} {' '.join(own)}")
            continue
        suite = ctx.options["suite"] or codename(ctx)
        lines += [f"deb {url} {suite}{end} {components}" for end in ("", *more)]
    return lines


def codename(ctx):
    match = re.search(r'^VERSION_CODENAME="?([\w-]+)', ctx.read("/etc/os-release"), re.MULTILINE)
    if not match:
        ctx.fail("the image's /etc/os-release does not name its suite; set suite in [setup_apt_sources]")
    return match.group(1)

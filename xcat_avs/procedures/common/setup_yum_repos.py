"""Install the site's yum repositories"""

OPTIONS = {
    "keep": (False, "keep the repositories that packages of the image brought along"),
}


def run(ctx):
    if ctx.image.version.packages != "rpm":
        ctx.say(f"{ctx.image.osvers} has no yum repositories: nothing to do")
        return
    site = ctx.site_file("yum.repos.d")
    wanted = sorted(site.glob("*.repo")) if site else []
    if not wanted:
        ctx.say("the site has no files/yum.repos.d/*.repo: repositories left as they are")
        return
    if not ctx.options["keep"]:
        for path in ctx.glob("etc/yum.repos.d/*.repo"):
            path.unlink()
    for path in wanted:
        ctx.install_file(path, f"/etc/yum.repos.d/{path.name}")

"""Have services start at boot"""

OPTIONS = {
    "services": ((), "names of services or units"),
    "missing": ("error", "what a service that is not there is: error, or ignore", ("error", "ignore")),
}


def run(ctx):
    options = ctx.options
    ctx.switch_services(options["services"], enable=True, missing=options["missing"])

"""Keep services from starting at boot"""

OPTIONS = {
    "services": ((), "names of services or units"),
    "mask": (False, "keep them from being started by anything else as well"),
    "missing": ("error", "what a service that is not there is: error, or ignore", ("error", "ignore")),
}


def run(ctx):
    options = ctx.options
    ctx.switch_services(options["services"], enable=False, mask=options["mask"], missing=options["missing"])

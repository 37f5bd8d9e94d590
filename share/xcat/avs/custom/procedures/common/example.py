"""Write which image a node runs into its greeting"""

# An example of a procedure: no recipe names it, so that it changes no image yet. In the recipe of one,
#   [recipe]
#   steps_add = example before cleanup
#   [example]
#   contact = hpc-admins@example.com
# and `avsimage -c steps IMAGE` shows it. avs-procedures(7) has all that ctx can do.

# The options with their defaults; a recipe sets them in [example].
OPTIONS = {
    "contact": ("root", "whom to ask about the image"),
}


def run(ctx):
    # A path of the image, not of this machine.
    ctx.install_file(f"{ctx.image.name}\nQuestions to {ctx.options['contact']}\n", "/etc/motd")

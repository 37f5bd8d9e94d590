"""Make nodes hosts of virtual machines: KVM and libvirt"""

OPTIONS = {
    "packages": ((), "packages to install instead of qemu and libvirt"),
    "nested": (False, "let virtual machines have virtual machines"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    if ctx.image.version.packages == "deb":
        packages = ("qemu-system-x86", "qemu-utils", "libvirt-daemon-system", "libvirt-clients")
    else:
        packages = ("qemu-kvm", "qemu-img", "libvirt", "virt-install")
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages))
    if ctx.options["nested"]:
        ctx.install_file("options kvm_intel nested=1\noptions kvm_amd nested=1\n", "etc/modprobe.d/avs-kvm.conf")
    ctx.service("libvirtd")

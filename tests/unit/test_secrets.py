"""Secrets in a tree: what is found, what is let be, what is allowed, and that nothing of it is told but kind and path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.recipes import procedure, recipe
from xcat_avs.recipes.procedure import Layer
from xcat_avs.settings import Settings, overlay_settings
from xcat_avs.tree import gate, secrets
from xcat_avs.tree.secrets import Finding, find, passwords

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDExample0000\n"
PEM = f"-----BEGIN PRIVATE KEY-----\n{BODY}-----END PRIVATE KEY-----\n"
TOP = Path(__file__).resolve().parents[2]


def put(root: Path, path: str, text: str = "x\n") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def found(root: Path, *hosts: str) -> list[tuple[str, str]]:
    return [(item.kind, item.path) for item in find(root, hosts)]


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("!", ""), ("*", ""), ("!!", ""), ("!*", ""), ("*LK*", ""), ("x", ""), ("!locked", ""), ("", "empty-password"),
        ("$6$salt$hash", "password-hash"), ("!$6$salt$hash", "password-hash"), ("!!$y$j9T$x$y", "password-hash"),
        ("abJnggxhB/yWI", "password-hash"), ("!abJnggxhB/yWI", "password-hash"), ("cluster", "password-hash"),
    ],
)  # fmt: skip
def test_fields_of_shadow(field: str, kind: str) -> None:
    data = f"daemon:*:19000:0:99999:7:::\nroot:{field}:19000:0:99999:7:::\n+::::::::\n".encode()
    assert passwords(data, True) == ({kind} if kind else set())
    assert passwords(data, False) == ({kind} if kind not in ("", "empty-password") else set())


CASES = [
    ("password-hash", "etc/shadow", "root:$6$a$b:1::::::\n"),
    ("password-hash", "etc/shadow-", "root:!$6$a$b:1::::::\n"),
    ("password-hash", "etc/gshadow", "wheel:$6$a$b::\n"),
    ("password-hash", "var/backups/shadow.bak", "root:$6$a$b:1::::::\n"),
    ("empty-password", "etc/shadow", "ann::1::::::\n"),
    ("empty-password", "etc/passwd", "ann::0:0::/:/bin/sh\n"),
    ("ssh-host-key", "etc/ssh/ssh_host_ed25519_key", PEM),
    ("private-key", "root/.ssh/work", PEM.replace("PRIVATE", "OPENSSH PRIVATE")),
    ("private-key", "opt/site/stunnel.pem", f"-----BEGIN CERTIFICATE-----\n{BODY}-----END CERTIFICATE-----\n{PEM}"),
    ("private-key", "etc/key.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"),
    ("private-key", "srv/k", f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,1\n\n{BODY}"),
    ("private-key", "usr/lib/app/server.key", PEM),
    ("private-key", "usr/local/lib/anything", PEM),
    ("private-key", "var/lib/app/test/key", PEM),
    ("private-key", "etc/k8s.yaml", "data: |\n  " + PEM.replace("\n", "\n  ")),
    ("munge-key", "etc/munge/munge.key", "x"),
    ("kerberos-credentials", "etc/krb5.keytab", "x"),
    ("kerberos-credentials", "tmp/krb5cc_0", "x"),
    ("cloud-credentials", "root/.aws/credentials", "x"),
    ("cloud-credentials", "home/ann/key.json", '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMII"}'),
    ("container-credentials", "root/.docker/config.json", '{"auths": {"x": {"auth": "dTpw"}}}'),
    ("container-credentials", "root/.kube/config", "users:\n- user:\n    client-key-data: LS0t\n"),
    ("client-credentials", "root/.netrc", "machine a login b password c\n"),
    ("client-credentials", "home/ann/.pgpass", "x"),
    ("repository-password", "etc/yum.repos.d/a.repo", "[a]\nbaseurl = https://u:p@host/\n"),
    ("repository-password", "etc/yum.repos.d/b.repo", "[a]\npassword=p\n"),
    ("repository-password", "etc/apt/sources.list.d/a.sources", "URIs: http://u:p@host/\n"),
    ("repository-password", "etc/apt/auth.conf.d/a.conf", "machine m login u password p\n"),
    ("repository-password", "root/.config/pip/pip.conf", "index-url = https://u:p@host/simple\n"),
    ("shell-history", "root/.bash_history", "ls\n"),
    ("random-seed", "var/lib/systemd/random-seed", "x"),
    ("machine-id", "etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("builder-hostname", "etc/hostname", "builder\n"),
    ("builder-hostname", "etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=builder.example.com\n"),
]  # fmt: skip
INNOCENT = [
    ("etc/shadow", "root:*:1::::::\nbin:!!:1::::::\n"), ("etc/gshadow", "root:::\nwheel:!::\n"),
    ("etc/passwd", "root:x:0:0::/:/bin/sh\n+::::::\n"), ("etc/machine-id", ""), ("var/lib/dbus/machine-id", ""),
    ("etc/hostname", "node\n"), ("root/.bash_history", ""), ("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA\n"),
    ("root/.ssh/authorized_keys", "ssh-rsa AAAA\n"), ("usr/share/doc/openssl/examples/server.key", PEM),
    ("usr/lib/python3/dist-packages/twisted/test/server.pem", PEM), ("opt/anaconda/lib/python3.9/test/keycert.pem", PEM),
    ("usr/share/app/howto.txt", PEM), ("etc/motd", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n"),
    ("usr/local/bin/tool", 'START = "-----BEGIN PRIVATE KEY-----"\n'), ("etc/pki/ca.pem", f"-----BEGIN CERTIFICATE-----\n{BODY}"),
    ("etc/apt/apt.conf.d/x", '// Acquire::http::Proxy "http://user:pass@host/";\n'), ("etc/dnf/dnf.conf", "#proxy_password=\n"),
    ("etc/rhsm/rhsm.conf", "proxy_password =\nother = 1\n"), ("root/.docker/config.json", '{"auths": {}}'),
    ("etc/yum.repos.d/a.repo", "baseurl=http://host:8080/a@b\n"), ("etc/mysql/debian.cnf", "password = \nsocket = x\n"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "text"), CASES, ids=lambda value: str(value)[:40])
def test_what_is_found(tmp_path: Path, kind: str, path: str, text: str) -> None:
    put(tmp_path, path, text)
    assert found(tmp_path, "builder.example.com") == [(kind, path)]


def test_what_is_let_be(tmp_path: Path) -> None:
    for path, text in INNOCENT:
        put(tmp_path, path, text)
    assert found(tmp_path, "builder", "localhost") == []


def test_a_builder_that_nobody_has_named(tmp_path: Path) -> None:
    put(tmp_path, "etc/hostname", "localhost.localdomain\n")
    assert found(tmp_path, "localhost.localdomain") == []


def test_a_file_of_any_size(tmp_path: Path) -> None:
    put(tmp_path, "etc/shadow", "ann:*:1::::::\n" * 20000 + "root:$6$a$b:1::::::\n")
    os.truncate(put(tmp_path, "etc/hostname", "builder\n"), 1 << 43)
    assert found(tmp_path, "builder") == [("builder-hostname", "etc/hostname"), ("password-hash", "etc/shadow")][::-1]


def test_a_file_as_a_deb_brought_it_is_known_to_everyone(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/app/dummy.key", PEM)
    put(tmp_path, "usr/lib/app/own.key", PEM + "\n")
    put(tmp_path, "etc/app/dummy.key", PEM)
    import hashlib

    sum = hashlib.md5(PEM.encode()).hexdigest()
    put(tmp_path, "var/lib/dpkg/info/app.md5sums", f"{sum}  usr/lib/app/dummy.key\n{sum}  etc/app/dummy.key\n")
    assert found(tmp_path) == [("private-key", "etc/app/dummy.key"), ("private-key", "usr/lib/app/own.key")]


def test_a_machine_id_is_missing_only_where_systemd_is(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    put(tmp_path, "usr/lib/systemd/systemd")
    assert found(tmp_path) == [("missing-machine-id", "etc/machine-id")]
    assert gate.refused(find(tmp_path)) == []
    assert "an empty file is right" in gate.warnings(find(tmp_path))[0]
    assert find(tmp_path, addon="kvm") == [], "an add-on is no whole image"
    put(tmp_path, "etc/machine-id", "")
    assert found(tmp_path) == []


def test_no_link_leads_out_of_the_tree(tmp_path: Path) -> None:
    root = tmp_path / "root"
    outside = put(tmp_path, "outside/shadow", "root:$6$a$b:1::::::\n")
    put(tmp_path, "outside/ssh/ssh_host_rsa_key", PEM)
    (root / "etc").mkdir(parents=True)
    (root / "etc/shadow").symlink_to(outside)
    (root / "etc/ssh").symlink_to(outside.parent / "ssh")
    (root / "etc/key.pem").symlink_to(outside.parent / "ssh/ssh_host_rsa_key")
    os.mkfifo(root / "etc/pipe.key")
    assert found(root) == []
    put(root, str(outside).lstrip("/"), "root::1::::::\n")  # the image's own file of that name
    assert found(root) == [("empty-password", "etc/shadow")]


def test_the_worst_comes_first_and_nothing_is_told_of_contents(tmp_path: Path) -> None:
    put(tmp_path, "etc/shadow", "ann::1::::::\nbob:$6$sesame$open:1::::::\n")
    put(tmp_path, "root/.netrc", "password sesame\n")
    items = find(tmp_path)
    assert [item.kind for item in items] == ["empty-password", "password-hash", "client-credentials"]
    error = gate.refusal(items, "it", "nothing was done")
    texts = [*gate.lines(items), *gate.warnings(items), str(error), repr(gate.document(items))]
    assert [text for text in texts if any(word in text for word in ("sesame", "ann", "bob"))] == []
    assert next(iter(secrets.KINDS)) == "empty-password"


# ------------------------------------------------------------------------ what is allowed


def test_settings_allow_with_a_reason(tmp_path: Path) -> None:
    first = overlay_settings(
        Settings(), {"secrets": {"private-key /etc/site/*.key": "test CA", "munge-key /etc/munge": "m"}}, "avs.conf"
    )
    last = overlay_settings(first, {"secrets": {"munge-key /etc/munge": ""}}, "recipe.conf")
    for path in ("etc/site/a.key", "etc/site/deep/b.key", "etc/ssl/private/ssl-cert-snakeoil.key"):
        put(tmp_path, path, PEM)
    put(tmp_path, "etc/munge/munge.key")
    judged = {item.path: (item.allowed, item.by) for item in gate.judge(find(tmp_path), last.secrets)}
    assert judged["etc/site/a.key"] == ("test CA", "avs.conf")
    assert judged["etc/site/deep/b.key"] == ("", "")
    assert judged["etc/munge/munge.key"] == ("", "")
    assert "nothing trusts" in judged["etc/ssl/private/ssl-cert-snakeoil.key"][0]
    assert any("allowed: test CA (avs.conf)" in line for line in gate.lines(gate.judge(find(tmp_path), last.secrets)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("private-key", "it takes lines KIND /PATH"),
        ("private-key etc/x", "it takes lines"),
        ("private-key /a /b", "it takes lines"),
    ],
)
def test_what_is_no_entry(line: str, said: str) -> None:
    with pytest.raises(AvsError, match=said):
        overlay_settings(Settings(), {"secrets": {line: "why"}}, "avs.conf")


def test_an_entry_needs_a_reason_and_a_kind_that_there_is() -> None:
    with pytest.raises(AvsError, match="has no reason"):
        overlay_settings(Settings(), {"secrets": {"private-key /etc/x": ""}}, "avs.conf")
    typo = overlay_settings(Settings(), {"secrets": {"private-keys /etc/x": "why"}}, "/etc/xcat/avs.conf")
    with pytest.raises(
        AvsError, match=r"^/etc/xcat/avs.conf: unknown kind of secret 'private-keys' \(did you mean private-key"
    ):
        gate.check(typo.secrets)
    gate.check(Settings().secrets)


def test_shipped_procedures_declare_what_they_put_in(tmp_path: Path) -> None:
    image = OsImage("debian12-x86_64-netboot-example.prod", {})
    allowed = recipe.declared_secrets(image, tmp_path, ["cleanup", "setup_ssh_host_keys", "gone_since"], addons=False)
    assert [(kind, path, by) for kind, path, _, by in allowed] == [
        ("ssh-host-key", "/etc/ssh/ssh_host_*_key", "procedure setup_ssh_host_keys")
    ]
    for path in (TOP / "xcat_avs/procedures").glob("*/*.py"):
        gate.check(procedure.load(path, Layer("shipped", path.parent, trusted=True)).declared_secrets())
    assert (
        gate.judge([Finding("ssh-host-key", "etc/ssh/ssh_host_rsa_key")], allowed)[0].by
        == "procedure setup_ssh_host_keys"
    )
    assert gate.judge([Finding("private-key", "etc/ssh/ssh_host_rsa_key")], allowed)[0].by == ""


def test_what_a_procedure_declares(tmp_path: Path) -> None:
    layer = Layer("site", tmp_path, trusted=True)
    path = put(
        tmp_path,
        "one.py",
        '"""One"""\nSECRETS = (("munge-key", "/etc/munge/munge.key", "all share it"),)\ndef run(ctx):\n    pass\n',
    )
    one = procedure.load(path, layer)
    assert one.declared_secrets() == [("munge-key", "/etc/munge/munge.key", "all share it", "procedure one")]
    above = put(tmp_path, "above/one.py", '"""One"""\ndef run(ctx):\n    ctx.overridden()\n')
    assert procedure.load(above, layer, one).declared_secrets() == one.declared_secrets()
    script = put(tmp_path, "two.sh", "#!/bin/sh\n# Two\n# SECRET munge-key /etc/munge/munge.key  all share it\n")
    script.chmod(0o755)
    two = procedure.load(script, layer)
    assert (two.doc, two.secrets) == ("Two", (("munge-key", "/etc/munge/munge.key", "all share it"),))
    for wrong in ("'x'", "[('munge-key', '/x')]", "[('a', '/x', 1)]", "make()"):
        path.write_text(f'"""One"""\nSECRETS = {wrong}\ndef run(ctx):\n    pass\n')
        with pytest.raises(AvsError, match="SECRETS must be"):
            procedure.load(path, layer)


def test_every_kind_is_in_the_page() -> None:
    page = (TOP / "man/man5/avs.conf.5").read_text(encoding="ascii").replace("\\-", "-")
    assert [kind for kind in secrets.KINDS if f"\n.B {kind}\n" not in page] == []

"""Certificates: what is wrong with which file, and new ones for clients that connect later."""

from __future__ import annotations

import logging
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from flatwater.listener.certificate import Certificate, CertificateError

Spoil = Callable[[Path, Path], object]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, folder: Path, name: str, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
    """``cert.pem`` and ``key.pem`` in the folder."""
    found = authority.issue_cert(name, "127.0.0.1", key_type=kind)
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in found.cert_chain_pems))
    (folder / "key.pem").write_bytes(found.private_key_pem.bytes())


def shown(
    server: ssl.SSLContext, authority: trustme.CA, name: str | None = "a.example", **limits: ssl.TLSVersion
) -> str:
    """The name in the certificate that a client gets who asks for ``name``; the version is there as well."""
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    trust.check_hostname = False
    for limit, version in limits.items():
        setattr(trust, limit, version)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    served = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, served):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert()
    assert found is not None
    return f"{found['subjectAltName'][0][1]} {client.version()}"


def encrypted(cert: Path, key: Path) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", f"{key}.new", "-passout", "pass:secret"]
    subprocess.run(command, check=True)
    Path(f"{key}.new").rename(key)


def halved(file: Path) -> None:
    text = file.read_text()
    file.write_text(text[: len(text) // 3] + text[-len(text) // 3 :])


WRONG: dict[str, tuple[Spoil, str, str, str]] = {
    "no certificate": (lambda cert, key: cert.unlink(), "cert.pem", "cannot be read: No such file", "check the path"),
    "a folder": (
        lambda cert, key: (key.unlink(), key.mkdir()),
        "key.pem",
        "cannot be read: Is a dir",
        "check the path",
    ),
    "exchanged": (
        lambda cert, key: cert.write_bytes(key.read_bytes()),
        "cert.pem",
        "the file holds none",
        "begins with",
    ),
    "no key": (lambda cert, key: key.write_bytes(cert.read_bytes()), "key.pem", "holds no private key", "made for"),
    "encrypted": (encrypted, "key.pem", "the key is encrypted", "openssl pkey"),
    "damaged": (lambda cert, key: halved(cert), "cert.pem", "OpenSSL cannot read it", "copy the file again"),
    "damaged key": (lambda cert, key: halved(key), "key.pem", "OpenSSL cannot read it", "copy the file again"),
    "DER": (lambda cert, key: key.write_bytes(b"\x30\x82\x04\xbd"), "key.pem", "holds no private key", "PEM"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_which_file(name: str, authority: trustme.CA, tmp_path: Path) -> None:
    spoil, file, what, hint = WRONG[name]
    issue(authority, tmp_path, "a.example")
    spoil(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(CertificateError) as caught:
        Certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert caught.value.where == str(tmp_path / file)
    assert what in caught.value.detail
    assert hint in caught.value.hint


def test_a_key_of_another(authority: trustme.CA, tmp_path: Path) -> None:
    issue(authority, tmp_path, "a.example")
    other = tmp_path / "other.pem"
    other.write_bytes(authority.issue_cert("b.example").private_key_pem.bytes())
    with pytest.raises(CertificateError, match=f"it was not made for the key in {other}"):
        Certificate(str(tmp_path / "cert.pem"), str(other))


def test_a_weak_one(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:512 -nodes -subj /CN=a -keyout key.pem -out cert.pem"
    made = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"this OpenSSL makes no weak keys: {made.stderr.decode()[-200:]}")
    with pytest.raises(CertificateError, match="too weak") as caught:
        Certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert caught.value.where.endswith("cert.pem")


def test_both_in_one_file_and_the_lowest_version(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_bytes(authority.issue_cert("a.example").private_key_and_cert_chain_pem.bytes())
    old = ssl.TLSVersion.TLSv1_2
    assert shown(Certificate(str(file)).context, authority) == "a.example TLSv1.3"
    assert shown(Certificate(str(file)).context, authority, maximum_version=old) == "a.example TLSv1.2"
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shown(Certificate(str(file), min_version="1.3").context, authority, maximum_version=old)


@pytest.mark.parametrize("name", ["a.example", None])
def test_a_new_one_is_shown_from_then_on(
    name: str | None, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issue(authority, tmp_path, "a.example", trustme.KeyType.RSA)
    found = Certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert shown(found.context, authority, name) == "a.example TLSv1.3"
    halved(tmp_path / "cert.pem")
    with caplog.at_level(logging.ERROR):
        assert not found.reload()
    assert "the certificate in use stays" in caplog.text
    assert shown(found.context, authority, name) == "a.example TLSv1.3"
    issue(authority, tmp_path, "b.example", trustme.KeyType.ECDSA)  # nothing of the old one may be left for RSA clients
    assert found.reload()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert shown(found.context, authority, name, maximum_version=version).startswith("b.example ")

"""The certificate that a listener shows: read from files, checked, and read again without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final, Literal

from flatwater.errors import FlatwaterError
from flatwater.listener.watch import Watch

log = logging.getLogger(__name__)

Version = Literal["1.2", "1.3"]

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MISMATCH: Final = "KEY_VALUES_MISMATCH"  # OpenSSL's names of what it finds wrong
_WEAK: Final = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")


class CertificateError(FlatwaterError, code="certificate"):
    """The certificate cannot be used."""


class Certificate:
    """A certificate with those that lead from it to its root, and its key, both PEM; without a key file the key stands
    in the certificate's. ``context`` goes to the listening server and stays the same; what it shows to clients that
    connect from then on changes with :meth:`reload`.

    Raises CertificateError that names the file and says what is wrong with it.
    """

    def __init__(self, certificate: str, key: str = "", *, min_version: Version = "1.2") -> None:
        self.certificate = Path(certificate)
        self.key = Path(key or certificate)
        self._min_version: Version = min_version
        self._current = self._made()
        self.context = self._made()
        self.context.sni_callback = self._show  # called whether or not the client names the server

    @classmethod
    def given(cls, certificate: str, key: str, min_version: Version) -> Certificate | None:
        """As settings say it: without a file there is none."""
        return cls(certificate, key, min_version=min_version) if certificate else None

    def reload(self) -> bool:
        """Read the files again; when they are wrong, what was shown stays, and the log says why."""
        try:
            self._current = self._made()
        except CertificateError as error:
            log.error("the certificate in use stays: %s", error)
            return False
        log.info("certificate loaded from %s", self.certificate)
        return True

    def watch(self) -> Watch:
        """Reloads it when its files change."""
        return Watch({self.certificate, self.key}, self.reload)

    def _show(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _made(self) -> ssl.SSLContext:
        self._look()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = _VERSIONS[self._min_version]
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # or it would ask on the terminal
        except ssl.SSLError as error:
            raise self._refused(error) from None
        return context

    def _look(self) -> None:
        """Raise what can be told without OpenSSL."""
        if b"-----BEGIN CERTIFICATE-----" not in _read(self.certificate):
            hint = "give a PEM file that begins with the server's own certificate"
            raise CertificateError("the file holds none", where=str(self.certificate), hint=hint)
        text = _read(self.key)
        if b"PRIVATE KEY-----" not in text:
            hint = "give the PEM file of the key that the certificate was made for"
            raise CertificateError("the file holds no private key", where=str(self.key), hint=hint)
        if b"BEGIN ENCRYPTED PRIVATE KEY" in text or b"Proc-Type: 4,ENCRYPTED" in text:
            hint = "decrypt it with openssl pkey -in FILE -out PLAIN, and let the server's user alone read that"
            raise CertificateError("the key is encrypted", where=str(self.key), hint=hint)

    def _refused(self, error: ssl.SSLError) -> CertificateError:
        if error.reason == _MISMATCH:
            hint = "give both of one making; the server's own certificate stands first in its file"
            what = f"it was not made for the key in {self.key}"
            return CertificateError(what, where=str(self.certificate), hint=hint)
        if error.reason in _WEAK:
            what = f"OpenSSL finds it too weak ({error.reason})"
            return CertificateError(what, where=str(self.certificate), hint="make a stronger one")
        damaged = self.key if _is_read(self.certificate) else self.certificate
        what = f"OpenSSL cannot read it ({error.reason or error})"
        return CertificateError(what, where=str(damaged), hint="copy the file again; it is damaged")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise CertificateError(what, where=str(file), hint="check the path and who may read it") from None


def _is_read(certificate: Path) -> bool:
    """Whether OpenSSL takes all certificates of a file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        return False
    return True

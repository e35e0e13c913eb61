"""TLS: the certificate that a server proves itself by, and the trust of its operator's commands in exactly it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .store import StoreError


@dataclass(frozen=True)
class Certificate:
    """A server's certificate and its key, ready to serve."""

    context: ssl.SSLContext
    pem: str
    """The certificate alone, without those that vouch for it."""

    @classmethod
    def load(cls, cert: Path | None, key: Path | None) -> Self | None:
        """What `--cert` and `--key` name; None where neither is given."""
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            raise StoreError(
                f"{'--key' if cert is None else '--cert'} is given alone: TLS needs a certificate and its key.",
                hint="Give both --cert FILE and --key FILE, in PEM, or neither.",
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            leaf = x509.load_pem_x509_certificates(cert.read_bytes())[0]
            key.read_bytes()  # of a file that cannot be read, OpenSSL would not say which it is
            # Without a password, OpenSSL would stop to ask for one at the terminal.
            context.load_cert_chain(cert, key, password=lambda: "")
        except ssl.SSLError as error:
            raise StoreError(
                f"The key {key} does not belong to the certificate {cert}, or is not a key: "
                f"{error.reason or error}.",
                hint="Give the certificate (with its chain below it) and its own key without a password, in PEM.",
            ) from None
        except OSError as error:
            raise StoreError(
                f"Cannot read {error.filename}: {error.strerror}.",
                hint="Give files in PEM that this user may read: --cert FILE --key FILE",
            ) from None
        except ValueError:
            raise StoreError(
                f"{cert} holds no certificate in PEM.",
                hint="Give the certificate first, those that vouch for it below: --cert FILE",
            ) from None
        return cls(context, leaf.public_bytes(Encoding.PEM).decode())


def trust_only(pem: str | None) -> ssl.SSLContext:
    """Trusts this one certificate, whatever names it has and whoever vouches for it; without one, nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # it is known by itself, and asked at the address that it listens on
    if pem is not None:
        context.load_verify_locations(cadata=pem)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context

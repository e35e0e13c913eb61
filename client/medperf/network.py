"""How this machine may talk to others: whom it trusts, and whether anything may leave it unencrypted."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import UsageError
from .files import write_atomically
from .home import allows_plain_http, is_loopback

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
OPTION, ENVIRONMENT, REMEMBERED = "--ca", "MEDPERF_CA", "remembered"
_KEPT = "ca.pem"
# A store of every public authority has 300 kB.
_STORE_BYTES_MOST = 16 * 1024 * 1024


@dataclass(frozen=True)
class SiteCa:
    """The certificates of a site's own authority, as PEM; `source` says who named the file."""

    source: str
    file: Path
    certificates: str


@dataclass(frozen=True)
class Network:
    """A site's own CA, trusted in addition to what the machine trusts, and whether plain http may leave it."""

    ca: SiteCa | None = None
    allows_http: bool = False

    @classmethod
    def of(cls, folder: Path, *, ca: str | None = None, allow_http: bool = False) -> Network:
        """The settings for the server whose local folder this is.

        The CA is the file given, else the one in `MEDPERF_CA`, else the one that the folder remembers. UsageError
        for a file that is missing or holds no certificate.
        """
        allows = allow_http or allows_plain_http()
        named = ((OPTION, ca), (ENVIRONMENT, os.environ.get(ENVIRONMENT)))
        for source, given in named:
            if given:
                return cls(_read(source, Path(given).expanduser()), allows)
        kept = folder / _KEPT
        return cls(_read(REMEMBERED, kept) if kept.exists() else None, allows)

    def remember(self, folder: Path) -> None:
        """Keep a CA that was given by `--ca` for the later commands of the server whose local folder this is.

        One that was remembered is kept again where the folder was set aside meanwhile.
        """
        if self.ca is None or self.ca.source == ENVIRONMENT:
            return
        if self.ca.source != REMEMBERED or not self.ca.file.exists():
            write_atomically(folder / _KEPT, self.ca.certificates)

    def trusted(self) -> ssl.SSLContext:
        """Trusts what this machine trusts (its store, or SSL_CERT_FILE), the public authorities, the site's CA."""
        import certifi  # takes longer than a request, and is needed for https only

        context = ssl.create_default_context(cafile=certifi.where())
        context.load_default_certs()
        if self.ca is not None:
            context.load_verify_locations(cadata=self.ca.certificates)
        return context

    def bundle(self) -> str | None:
        """All of that as one PEM text, for a program that takes a single file; None without a CA of the site's."""
        if self.ca is None:
            return None
        import certifi

        files = [Path(certifi.where()), *_stores(), *_named_for_pip()]
        found = [block for file in files for block in _certificates(file)]
        blocks = dict.fromkeys([*found, *_CERTIFICATE.findall(self.ca.certificates)])
        return "".join(f"{block}\n" for block in blocks)

    def is_plain(self, url: str) -> bool:
        """Whether what goes to `url` could be read on the way: plain http to another machine.

        UsageError unless that was asked for.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or is_loopback(parts.hostname or ""):
            return False
        if not self.allows_http:
            raise UsageError(
                f"{url} is neither https nor on this machine: it could be read and altered on the way.",
                hint="Ask for its https address. On a network that you trust whole, --allow_http"
                " (MEDPERF_ALLOW_HTTP=1) lets it pass.",
            )
        return True


def _read(source: str, file: Path) -> SiteCa:
    try:
        text = file.read_bytes().decode("latin-1")
    except OSError as error:
        raise UsageError(
            f"The CA's file {file} ({source}) cannot be read: {error.strerror}.",
            hint="Give --ca (MEDPERF_CA) the file with your site's CA certificate, or leave it out.",
        ) from error
    blocks = _CERTIFICATE.findall(text)
    certificates = "".join(f"{block}\n" for block in blocks)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ValueError, ssl.SSLError) as error:
        raise UsageError(
            f"The file {file} ({source}) holds no certificate in PEM.",
            hint="Give the file that begins with BEGIN CERTIFICATE; one in DER becomes such a file by"
            " `openssl x509 -inform der -in FILE -out ca.pem`.",
        ) from error
    return SiteCa(source, file, certificates)


def _stores() -> list[Path]:
    """The files of the machine's own store; a folder's links to files that it holds as well come once."""
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    for folder in (paths.capath or "").split(os.pathsep):
        if folder and Path(folder).is_dir():
            files += sorted({entry.resolve() for entry in Path(folder).iterdir() if entry.is_file()})
    return files


def _named_for_pip() -> list[Path]:
    # Naming one bundle takes the place of these, which a site may have set for pip.
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return [Path(named) for name in names if (named := os.environ.get(name))]


def _certificates(file: Path) -> list[str]:
    try:
        if file.stat().st_size > _STORE_BYTES_MOST:
            return []
        return _CERTIFICATE.findall(file.read_bytes().decode("latin-1"))
    except OSError:  # not readable to us is not readable to pip either
        return []

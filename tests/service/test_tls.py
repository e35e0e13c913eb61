"""TLS by the server itself: what is refused before it listens, who is trusted by whom."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from service.served import Start, refused, run
from services.embedded.store import Store
from services.embedded.tls import Certificate

PASSWORD = "sesame-sesame"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--cert", str(self.cert), "--key", str(self.key))


class Authority:
    """A site's own CA."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a site's own authority")])
        certificate = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> Pair:
        """A certificate for this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key, x509.BasicConstraints(ca=False, path_length=None))
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.cert.write_bytes(certificate.public_bytes(Encoding.PEM) + self.file.read_bytes())
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        (self._folder / f"{name}.locked").write_bytes(locked)
        return pair

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        here = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def medperf(folder: Path, url: str, *arguments: str, trusted: Path | None) -> subprocess.CompletedProcess[str]:
    """The real client, on a machine that trusts this CA beside the public ones."""
    environment = {**os.environ, "MEDPERF_HOME": str(folder / "medperf"), "MEDPERF_SERVER": url}
    environment.pop("SSL_CERT_FILE", None)
    if trusted is not None:
        environment["SSL_CERT_FILE"] = str(trusted)
    return subprocess.run(
        [str(Path(sys.executable).parent / "medperf"), *arguments],
        env=environment,
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_client_that_trusts_the_sites_authority_logs_in_and_no_other_does(
    home: Path, up: Start, authority: Authority, tmp_path: Path
) -> None:
    server = up(*authority.issue("server").options)
    assert server.url.startswith("https://127.0.0.1:")
    made = run(home, "user", "add", "ada", "--password-stdin", typed=f"{PASSWORD}\n")
    assert made.returncode == 0, made
    login = ("login", "--username", "ada", "--password_stdin")
    stranger = medperf(tmp_path, server.url, *login, trusted=None)
    assert stranger.returncode == 5, stranger
    assert "is not trusted on this machine" in stranger.stderr
    friend = medperf(tmp_path, server.url, *login, trusted=authority.file)
    assert (friend.returncode, friend.stdout) == (0, f"Logged in to {server.url} as ada.\n"), friend
    plain = server.url.replace("https", "http")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{plain}/api/v1/server", trust_env=False)


def test_no_version_before_1_2_is_spoken(home: Path, up: Start, authority: Authority) -> None:
    url = httpx.URL(up(*authority.issue("server").options).url)

    def shake_hands(highest: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, highest
        with (
            socket.create_connection((url.host, url.port or 0), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=url.host) as secured,
        ):
            return secured.version()

    with pytest.warns(DeprecationWarning, match="TLSv1"):
        assert shake_hands(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with (
        pytest.warns(DeprecationWarning, match="TLSv1"),
        pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"),
    ):
        shake_hands(ssl.TLSVersion.TLSv1_1)


def test_a_running_server_with_tls_is_seeded(home: Path, up: Start, authority: Authority) -> None:
    up(*authority.issue("server").options)
    done = run(home, "seed", "--demo", "data")
    assert (done.returncode, done.stderr) == (0, ""), done


def test_the_operators_token_goes_to_the_stores_own_certificate_alone(home: Path, authority: Authority) -> None:
    """An impostor on the announced port has a certificate of the same authority, for the same names."""
    own, impostor = authority.issue("server"), authority.issue("impostor")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(impostor.cert, impostor.key)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    heard.append(secured.recv(1000))
            except OSError:
                heard.append(b"")

        listening = threading.Thread(target=listen)
        listening.start()
        store = Store(home)
        certificate = Certificate.load(own.cert, own.key)
        assert certificate is not None
        with store.locked():
            store.write_operator_token()
            (home / "accounts.db").touch()
            store.announce(f"https://127.0.0.1:{listener.getsockname()[1]}", certificate=certificate.pem)
            said = refused(home, "user", "ls")
        listening.join(10)
    assert "does not prove itself by the certificate of the store's server" in said
    assert heard == [b""], "nothing was sent to it"


def test_what_cannot_serve_is_refused_before_anything_listens(home: Path, authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    nothing = str(home / "nothing.pem")
    for options, said in (
        (("--cert", str(one.cert)), "--cert is given alone"),
        (("--key", str(one.key)), "--key is given alone"),
        (("--cert", nothing, "--key", str(one.key)), f"Cannot read {nothing}: No such file or directory."),
        (("--cert", str(one.cert), "--key", nothing), f"Cannot read {nothing}: No such file or directory."),
        (("--cert", str(one.cert), "--key", str(other.key)), "does not belong to the certificate"),
        (("--cert", str(one.key), "--key", str(one.key)), "holds no certificate in PEM"),
        (("--cert", str(one.cert), "--key", str(one.cert)), "is not a key"),
        (("--cert", str(one.cert), "--key", str(one.key.with_suffix(".locked"))), "is not a key"),
    ):
        assert said in refused(home, "up", "--port", "0", *options), options
    assert not home.exists(), "no store was made"


def test_a_server_that_a_network_can_read_says_so(home: Path, up: Start, authority: Authority) -> None:
    warning = "Warning: logins cross the network readable"
    pair = authority.issue("server")
    for options, warns in (
        (("--host", "0.0.0.0"), True),
        (("--host", "0.0.0.0", *pair.options), False),
        ((), False),
    ):
        server = up(*options)
        server.stop(signal.SIGTERM)
        said = str(server.terminal.before)
        assert said.count(warning) == warns, said

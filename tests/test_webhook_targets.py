"""Where webhooks go: to the address that was checked, under the name that was configured."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployments.core.config import WebhookConfig
from tests.outbox import cancelled_job, outbox_for, run, settle, to
from tests.receiver import SECRET, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.7", "169.254.169.254"])
def test_a_public_name_with_a_private_address_gets_nothing(
    url: str, receiver: Receiver, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address counts, as it is when the webhook is sent; one bad address spoils a name."""
    port = int(receiver.url.rpartition(":")[2])
    asked = []

    async def look_up(_: object, host: str, port: int, **__: object) -> list[Any]:
        asked.append(host)
        addresses = ("93.184.216.34", address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    hook = WebhookConfig(url=f"https://hooks.example.org:{port}/", secret=SECRET)
    outbox = outbox_for(hook)
    run(settle(outbox, cancelled_job(url, outbox)))
    assert asked == ["hooks.example.org"] * 3
    assert receiver.received == []


def test_the_address_that_was_checked_is_the_one_that_is_used(
    url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once for an attempt; its own name goes into the request."""
    port = int(receiver.url.rpartition(":")[2])
    real, asked = asyncio.BaseEventLoop.getaddrinfo, []

    async def look_up(loop: Any, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return await real(loop, "127.0.0.1", port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    outbox = outbox_for(to(receiver, url=f"http://hooks.internal:{port}/hook"))
    run(settle(outbox, cancelled_job(url, outbox)))
    assert receiver.received[0].headers["host"] == f"hooks.internal:{port}"
    assert asked.count("hooks.internal") == 1


def certificate_of(name: str, folder: Path) -> ssl.SSLContext:
    """Make a certificate that signs itself; `folder/certificate.pem` has both parts."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(("name", "arrives"), [("hooks.internal", True), ("other.test", False)])
def test_the_certificate_must_be_that_of_the_name(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arrives: bool
) -> None:
    """Though the connection goes to an address."""

    async def look_up(loop: Any, host: str, port: int, **options: Any) -> list[Any]:
        return await real(loop, "127.0.0.1", port, **options)

    real = asyncio.BaseEventLoop.getaddrinfo
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with receiving(certificate_of("hooks.internal", tmp_path)) as receiver:
        port = receiver.url.rpartition(":")[2]
        outbox = outbox_for(to(receiver, url=f"https://{name}:{port}/"))
        run(settle(outbox, cancelled_job(url, outbox)))
        assert bool(receiver.received) is arrives

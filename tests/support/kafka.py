"""A real Kafka of its own for tests: one broker on loopback, without ZooKeeper."""

from __future__ import annotations

import subprocess
import time
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from fedtasks.laptop.ports import free_ports
from fedtasks.supervisor import command
from tests.support.jars import java, kafka_jars

USER, PASSWORD = "bank", "a password of the tests"
_SILENT_LOG = "org.slf4j.simpleLogger.defaultLogLevel=warn"


class KafkaBroker:
    """Starts on entry and ends on exit; data and log are below `folder`.

    It serves plain connections at `address`, such with SASL at `closed_address`, and with SASL over TLS at
    `tls_address`, where `authority` has signed its certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        *ports, self._controller = free_ports(4)
        self.address, self.closed_address, self.tls_address = (f"127.0.0.1:{port}" for port in ports)
        self.authority = folder / "authority.pem"
        self._broker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._configure()
        try:
            identity = uuid.uuid4().hex[:22]
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(self._settings)),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"Kafka's storage cannot be made: {done.stdout}{done.stderr}")
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def admin(self) -> KafkaAdminClient:
        """Return a client that makes topics; whoever asks closes it."""
        return KafkaAdminClient(bootstrap_servers=self.address)

    @property
    def _settings(self) -> Path:
        return self._folder / "server.properties"

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        keys = self._folder / "broker.pem"
        keys.write_bytes(_signed_by_itself(self.authority))
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address},SASL_PLAINTEXT://{self.closed_address},"
            f"SASL_SSL://{self.tls_address},CONTROLLER://127.0.0.1:{self._controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keys),
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
            "log.dirs": str(self._folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
        }
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")

    def _java(self, main: str, *arguments: str) -> list[str]:
        jars = f"{kafka_jars()}/*"
        return [java(), "-Xmx256m", "-XX:+UseSerialGC", f"-D{_SILENT_LOG}", "-cp", jars, main, *arguments]

    def _start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            # Under a guard, so that nothing stays when the tests are killed.
            self._broker = subprocess.Popen(
                command(self._java("kafka.Kafka", str(self._settings)), grace_s=5), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                self.admin().close()
                return
            except (KafkaError, OSError):
                if self._broker.poll() is not None or time.monotonic() > deadline:
                    text = (self._folder / "broker.log").read_text()[-3000:]
                    raise RuntimeError(f"Kafka does not serve:\n{text}") from None
                time.sleep(0.2)

    def _end(self) -> None:
        if self._broker is not None:
            self._broker.terminate()
            self._broker.wait()


def _signed_by_itself(authority: Path) -> bytes:
    """Write the certificate of a broker on loopback; returns it with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    loopback = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    authority.write_bytes(certificate)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()) + certificate

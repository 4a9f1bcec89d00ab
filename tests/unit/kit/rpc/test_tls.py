"""Mutual TLS: verification, plaintext on loopback, and rotation."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import ValidationError
from structlog.testing import capture_logs

from kit.auth.access import PUBLIC_ACCESS
from kit.rpc import rotation, server
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.request_context import RequestContext, current_request
from kit.rpc.rotation import rotating_channel
from kit.rpc.server import Service, grpc_server
from kit.rpc.tls import TLS, CertificateBundle, PlaintextError, require_loopback
from kit.runtime.settings import TLSSettings
from provisioning.certificates import ensure_certificates
from stack.ports import free_ports
from tests.conftest import Keys
from tests.waiting import until
from wallet.errors import Unavailable

SERVICE = "test.Peers"
AS_BANK = (("grpc.default_authority", "bank"),)


class CertificateAuthority:
    """Certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def issue(self, name: str) -> TLS:
        """Return the TLS files of a name, created if necessary."""
        ensure_certificates(self.folder, [name], datetime.now(UTC))
        return TLS(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.folder / "authority.pem")

    def renew(self, name: str) -> int:
        """Replace the key and then the certificate of a name; return the new serial number."""
        spare = CertificateAuthority(self.folder / "spare")
        spare.folder.mkdir(exist_ok=True)
        for file in self.folder.glob("authority.*"):
            shutil.copy(file, spare.folder)
        (spare.folder / f"{name}.pem").unlink(missing_ok=True)
        spare.issue(name)
        for suffix in ("key", "pem"):
            (spare.folder / f"{name}.{suffix}").rename(self.folder / f"{name}.{suffix}")
        return self.serial(name)

    def serial(self, name: str) -> int:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.pem").read_bytes()).serial_number


class Peer:
    """Client of a service that returns the serial number of the client's certificate, and the client's address."""

    def __init__(self, opened: grpc.aio.Channel) -> None:
        self._show: Any = opened.unary_unary(f"/{SERVICE}/Show", Empty.SerializeToString, StringValue.FromString)
        self.calls = RpcClient("the peer", ClientLimits())
        self.follow: Any = opened.unary_stream(f"/{SERVICE}/Follow", Empty.SerializeToString, StringValue.FromString)

    async def read_identity(self) -> tuple[int, str]:
        identity = await self.calls.unary(self._show, Empty())
        serial, address = identity.value.split()
        return int(serial), address


def register(to: grpc.aio.Server) -> None:
    def identity(context: Any) -> StringValue:
        (pem,) = context.auth_context()["x509_pem_cert"]
        return StringValue(value=f"{x509.load_pem_x509_certificate(pem).serial_number} {context.peer()}")

    async def show(_: Empty, context: Any) -> StringValue:
        return identity(context)

    async def follow(_: Empty, context: Any) -> AsyncIterator[StringValue]:
        while True:
            yield identity(context)
            await asyncio.sleep(0.01)

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Show": grpc.unary_unary_rpc_method_handler(show, Empty.FromString, StringValue.SerializeToString),
        "Follow": grpc.unary_stream_rpc_method_handler(follow, Empty.FromString, StringValue.SerializeToString),
    }
    to.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    to.add_registered_method_handlers(SERVICE, methods)


PEERS = Service(register, {"Show": PUBLIC_ACCESS, "Follow": PUBLIC_ACCESS})


@pytest.fixture
def our_ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "our_ca")


@pytest.fixture
def other_ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "other_ca")


@pytest.fixture
async def bank(our_ca: CertificateAuthority, keys: Keys) -> AsyncIterator[str]:
    """Run a server with the certificate of the bank; yield its target."""
    target = f"127.0.0.1:{free_ports(1)[0]}"
    async with grpc_server(target, keys.verifier(), {SERVICE: PEERS}, our_ca.issue("bank")):
        yield target


@pytest.fixture(autouse=True)
def alice(keys: Keys) -> Iterator[None]:
    reset = current_request.set(RequestContext("test", token=keys.user("alice")))
    yield
    current_request.reset(reset)


@asynccontextmanager
async def open_peer(target: str, tls: TLS | None, name: str = "bank") -> AsyncIterator[Peer]:
    async with open_channel(target, SERVICE, (), tls, name=name) as opened:
        yield Peer(opened)


async def check_health(opened: grpc.aio.Channel) -> Any:
    health: Any = health_pb2_grpc.HealthStub(opened)
    return (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status


async def list_services(opened: grpc.aio.Channel) -> set[str]:
    """Return the names of the services that reflection lists."""
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(opened)  # type: ignore[arg-type]  # both kinds work
    (listed,) = [each async for each in stub.ServerReflectionInfo(requests)]
    return {each.name for each in listed.list_services_response.service}


class TestCalls:
    @pytest.mark.parametrize(
        "form", ["{0}", "dns:///{0}", "ipv4:{0}", "ipv4:{0},{0}", "localhost:{1}", "dns:///localhost:{1}"]
    )
    async def test_both_sides_verify_the_certificate_of_the_other(
        self, bank: str, our_ca: CertificateAuthority, form: str
    ) -> None:
        async with open_peer(form.format(bank, bank.rpartition(":")[2]), our_ca.issue("gateway")) as peer:
            assert (await peer.read_identity())[0] == our_ca.serial("gateway")
        assert read_server_serial(bank, our_ca) == our_ca.serial("bank")

    async def test_health_and_reflection_are_served_to_a_client_with_a_certificate(
        self, bank: str, our_ca: CertificateAuthority
    ) -> None:
        credentials = our_ca.issue("gateway").current_bundle().channel_credentials()
        async with grpc.aio.secure_channel(bank, credentials, AS_BANK) as opened:
            assert await check_health(opened) == health_pb2.HealthCheckResponse.SERVING
            assert SERVICE in await list_services(opened)


class TestRefused:
    async def test_client_without_a_certificate_is_refused(self, bank: str, our_ca: CertificateAuthority) -> None:
        credentials = grpc.ssl_channel_credentials(our_ca.issue("gateway").current_bundle().authority)
        async with grpc.aio.secure_channel(bank, credentials, AS_BANK) as opened:
            with pytest.raises(Unavailable):
                await Peer(opened).read_identity()

    @pytest.mark.parametrize("call", [check_health, list_services])
    async def test_health_and_reflection_need_a_certificate(
        self,
        bank: str,
        our_ca: CertificateAuthority,
        other_ca: CertificateAuthority,
        call: Callable[[grpc.aio.Channel], Awaitable[Any]],
    ) -> None:
        authority = our_ca.issue("gateway").current_bundle().authority
        certificate, key, _ = other_ca.issue("gateway").current_bundle()
        for channel in (
            grpc.aio.secure_channel(bank, grpc.ssl_channel_credentials(authority), AS_BANK),
            grpc.aio.secure_channel(bank, grpc.ssl_channel_credentials(authority, key, certificate), AS_BANK),
            grpc.aio.insecure_channel(bank, AS_BANK),
        ):
            async with channel as opened:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(opened)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_client_of_another_authority_is_refused(
        self, bank: str, our_ca: CertificateAuthority, other_ca: CertificateAuthority
    ) -> None:
        certificate, key, _ = other_ca.issue("gateway").current_bundle()
        authority = our_ca.issue("gateway").current_bundle().authority
        credentials = CertificateBundle(certificate, key, authority).channel_credentials()
        async with grpc.aio.secure_channel(bank, credentials, AS_BANK) as opened:
            with pytest.raises(Unavailable):
                await Peer(opened).read_identity()

    async def test_server_of_another_authority_is_refused(
        self, bank: str, our_ca: CertificateAuthority, other_ca: CertificateAuthority
    ) -> None:
        certificate, key, _ = our_ca.issue("gateway").current_bundle()
        authority = other_ca.issue("gateway").current_bundle().authority
        credentials = CertificateBundle(certificate, key, authority).channel_credentials()
        async with grpc.aio.secure_channel(bank, credentials, AS_BANK) as opened:
            with pytest.raises(Unavailable):
                await Peer(opened).read_identity()

    async def test_server_is_refused_without_an_expected_name(self, bank: str, our_ca: CertificateAuthority) -> None:
        async with open_peer(bank, our_ca.issue("gateway"), name="") as peer:
            with pytest.raises(Unavailable):
                await peer.read_identity()

    async def test_server_with_another_name_is_refused(self, bank: str, our_ca: CertificateAuthority) -> None:
        async with open_peer(bank, our_ca.issue("gateway"), name="card") as peer:
            with pytest.raises(Unavailable):
                await peer.read_identity()

    async def test_plaintext_client_is_refused(self, bank: str) -> None:
        async with open_peer(bank, None) as peer:
            with pytest.raises(Unavailable):
                await peer.read_identity()

    async def test_plaintext_server_is_refused(self, our_ca: CertificateAuthority, keys: Keys) -> None:
        target = f"127.0.0.1:{free_ports(1)[0]}"
        async with (
            grpc_server(target, keys.verifier(), {SERVICE: PEERS}),
            open_peer(target, our_ca.issue("gateway")) as peer,
        ):
            with pytest.raises(Unavailable):
                await peer.read_identity()

    async def test_tls_1_1_is_refused(self, bank: str, our_ca: CertificateAuthority) -> None:
        assert read_server_serial(bank, our_ca, ssl.TLSVersion.TLSv1_2)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError):
            read_server_serial(bank, our_ca, ssl.TLSVersion.TLSv1_1)


class TestPlaintext:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1:50051",
            "127.9.9.9:50051",
            "localhost:50051",
            "[::1]:50051",
            "dns:///localhost:50051",
            "dns:localhost:50051",
            "dns://127.0.0.1/localhost:50051",
            "ipv4:127.0.0.1:1,127.0.0.1:2",
            "ipv6:[::1]:1,[::1]:2",
        ],
    )
    def test_plaintext_is_allowed_on_loopback(self, address: str) -> None:
        require_loopback(address)

    @pytest.mark.parametrize(
        "address",
        [
            "0.0.0.0:50051",
            "[::]:50051",
            "10.0.0.1:50051",
            "bank:50051",
            "dns:///bank:50051",
            "dns://127.0.0.1/bank:50051",
            "localhost.example:50051",
            "127.0.0.1.example:50051",
            "ipv4:127.0.0.1:1,10.0.0.2:2",
            "ipv4:127.0.0.1:1%2C10.0.0.2:2",
            "ipv6:[fd00::1]:1",
            "xds:///127.0.0.1:1",
            ":50051",
        ],
    )
    async def test_plaintext_is_refused_outside_of_loopback(self, address: str, keys: Keys) -> None:
        with pytest.raises(PlaintextError, match="set TLS_CERTIFICATE, TLS_KEY and TLS_AUTHORITY"):
            async with open_channel(address, SERVICE, ()):
                pass
        with pytest.raises(PlaintextError, match="plaintext is for loopback only"):
            async with grpc_server(address, keys.verifier(), {}):
                pass


class TestSettings:
    def test_settings_need_all_three_files_or_none(
        self, our_ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert TLS.from_settings(TLSSettings()) is None
        our_ca.issue("bank")
        monkeypatch.setenv("TLS_CERTIFICATE", str(our_ca.folder / "bank.pem"))
        monkeypatch.setenv("TLS_AUTHORITY", str(our_ca.folder / "authority.pem"))
        with pytest.raises(ValidationError, match="must be set together, or not at all: add TLS_KEY"):
            TLSSettings()
        monkeypatch.setenv("TLS_KEY", str(our_ca.folder / "bank.key"))
        tls = TLS.from_settings(TLSSettings())
        assert tls is not None
        assert tls.current_bundle().certificate == (our_ca.folder / "bank.pem").read_bytes()

    def test_inconsistent_or_missing_files_are_an_error(self, our_ca: CertificateAuthority) -> None:
        our_ca.issue("bank")
        our_ca.issue("card")
        bank, card, authority = (our_ca.folder / name for name in ("bank.pem", "card.key", "authority.pem"))
        wrong = TLSSettings(tls_certificate=bank, tls_key=card, tls_authority=authority)
        with pytest.raises(
            ValueError, match=r"card\.key .* are not consistent: the key does not belong to the certificate"
        ):
            TLS.from_settings(wrong)
        with pytest.raises(FileNotFoundError):
            TLS(bank, our_ca.folder / "nowhere.key", authority)


class TestRotation:
    @pytest.fixture(autouse=True)
    def short_check_interval(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rotation, "_CHECK_INTERVAL_SECONDS", 0.05)

    async def test_rotation_under_load_fails_no_call(self, bank: str, our_ca: CertificateAuthority) -> None:
        async with open_peer(bank, our_ca.issue("gateway")) as peer, constant_load(peer) as identities:
            for _ in range(3):
                renewed, expected = our_ca.renew("bank"), our_ca.renew("gateway")
                await until(partial(has_serial, peer, expected))
                assert read_server_serial(bank, our_ca) == renewed
            last = await peer.read_identity()
        assert len({serial for serial, _ in identities}) == 4
        assert last[0] == our_ca.serial("gateway")

    async def test_connected_clients_reconnect_after_a_rotation_of_the_server_certificate(
        self, our_ca: CertificateAuthority, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_MAX_CONNECTION_AGE_MS", 200)
        target = f"127.0.0.1:{free_ports(1)[0]}"
        async with (
            grpc_server(target, keys.verifier(), {SERVICE: PEERS}, our_ca.issue("bank")),
            open_peer(target, our_ca.issue("gateway")) as peer,
            constant_load(peer) as identities,
        ):
            _, before = await peer.read_identity()
            our_ca.renew("bank")

            async def has_reconnected() -> bool:
                return (await peer.read_identity())[1] != before

            await until(has_reconnected)
        assert len({address for _, address in identities}) > 1

    async def test_rotation_closes_the_old_connection_after_its_last_stream(
        self, bank: str, our_ca: CertificateAuthority
    ) -> None:
        opened: list[grpc.aio.Channel] = []

        def connect(material: CertificateBundle) -> grpc.aio.Channel:
            opened.append(grpc.aio.secure_channel(bank, material.channel_credentials(), AS_BANK))
            return opened[-1]

        async with rotating_channel(our_ca.issue("gateway"), connect) as both:
            peer = Peer(both)
            first = our_ca.serial("gateway")
            feed = peer.calls.stream(peer.follow, Empty())
            await anext(feed)
            second = our_ca.renew("gateway")
            await until(partial(has_serial, peer, second))
            assert (await anext(feed)).value.startswith(f"{first} ")
            assert opened[0].get_state() is grpc.ChannelConnectivity.READY
            await feed.aclose()
            await until(partial(is_closed, opened[0]))
            assert await has_serial(peer, second)
        assert await is_closed(opened[1])

    async def test_rotation_waits_until_both_files_are_replaced(
        self, bank: str, our_ca: CertificateAuthority, tmp_path: Path
    ) -> None:
        async with open_peer(bank, our_ca.issue("gateway")) as peer, constant_load(peer):
            first = our_ca.serial("gateway")
            for file in ("gateway.key", "bank.key"):
                shutil.copy(our_ca.folder / file, tmp_path / file)
            with capture_logs() as events:
                renewed, second = our_ca.renew("bank"), our_ca.renew("gateway")
                for file in ("gateway.key", "bank.key"):
                    (our_ca.folder / file).rename(tmp_path / f"new {file}")
                    (tmp_path / file).rename(our_ca.folder / file)

                async def is_logged() -> bool:
                    return any("rejected" in line["event"] for line in events)

                await until(is_logged)
                assert await has_serial(peer, first)
                assert read_server_serial(bank, our_ca) != renewed
            for file in ("gateway.key", "bank.key"):
                (tmp_path / f"new {file}").rename(our_ca.folder / file)
            await until(partial(has_serial, peer, second))
            assert read_server_serial(bank, our_ca) == renewed

    async def test_rotation_to_an_untrusted_certificate_is_rejected(
        self, bank: str, our_ca: CertificateAuthority, other_ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rotation, "_CONNECT_TIMEOUT_SECONDS", 1.0)
        other_ca.issue("gateway")
        async with open_peer(bank, our_ca.issue("gateway")) as peer, constant_load(peer):
            first = our_ca.serial("gateway")
            with capture_logs() as events:
                for file in ("gateway.key", "gateway.pem"):
                    shutil.copy(other_ca.folder / file, our_ca.folder / file)

                async def is_logged() -> bool:
                    return any("no connection with the new certificate" in line["event"] for line in events)

                await until(is_logged)
            assert await has_serial(peer, first)
            second = our_ca.renew("gateway")
            await until(partial(has_serial, peer, second))


@asynccontextmanager
async def constant_load(peer: Peer) -> AsyncIterator[set[tuple[int, str]]]:
    """Make calls without pauses during the block, and raise the error of a failed one; yield the set of responses."""
    identities: set[tuple[int, str]] = set()
    stop = asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            identities.add(await peer.read_identity())

    async with asyncio.TaskGroup() as calls:
        for _ in range(4):
            calls.create_task(call())
        yield identities
        stop.set()


async def has_serial(peer: Peer, serial: int) -> bool:
    return (await peer.read_identity())[0] == serial


async def is_closed(opened: grpc.aio.Channel) -> bool:
    return opened.get_state() is grpc.ChannelConnectivity.SHUTDOWN


def read_server_serial(
    target: str, authority: CertificateAuthority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> int:
    """Return the serial number of the server certificate on a new connection."""
    probe = authority.folder / "probe"
    probe.mkdir(exist_ok=True)
    for file in authority.folder.glob("authority.*"):
        shutil.copy(file, probe)
    CertificateAuthority(probe).issue("probe")
    context = ssl.create_default_context(cafile=str(probe / "authority.pem"))
    context.load_cert_chain(probe / "probe.pem", probe / "probe.key")
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="bank") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number

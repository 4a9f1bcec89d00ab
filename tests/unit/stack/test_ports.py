import socket

import pytest

from stack.ports import HOST, PortError, Ports, check_free


class TestDerive:
    def test_the_default_port_gives_the_documented_table(self) -> None:
        ports = Ports.derive(8000)
        assert ports == Ports()
        assert (ports.gateway, ports.bank_grpc, ports.bank_admin, ports.postgres, ports.clickhouse) == (
            8000,
            50051,
            9101,
            15432,
            18123,
        )

    def test_every_port_moves_with_it(self) -> None:
        moved = dict(Ports.derive(8010).items())
        assert moved == {name: port + 10 for name, port in Ports().items()}

    def test_no_two_parts_share_a_port(self) -> None:
        ports = [port for _, port in Ports.derive(8000).items()]
        assert len(set(ports)) == len(ports)

    @pytest.mark.parametrize("port", [80, 1023, 60000])
    def test_refuses_a_port_that_would_push_another_out_of_range(self, port: int) -> None:
        with pytest.raises(PortError, match=rf"PORT={port} .* from 1024 to \d+"):
            Ports.derive(port)


class TestFree:
    def test_gives_different_ports_that_can_be_listened_on(self) -> None:
        ports = dict(Ports.free().items())
        assert len(set(ports.values())) == len(ports)
        check_free(ports)


class TestCheckFree:
    def test_names_the_port_what_wanted_it_and_the_setting(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(PortError) as refusal:
                check_free({"bank (gRPC)": port})
        line = str(refusal.value)
        assert f"port {port} is in use" in line
        assert "bank (gRPC)" in line
        assert "PORT=" in line
        assert "\n" not in line

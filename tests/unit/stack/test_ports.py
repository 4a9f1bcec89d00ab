import socket
import subprocess
import sys
from subprocess import PIPE

import pytest

from stack.ports import HOST, PortError, Ports, check_free, free_ports
from stack.process import ROOT


class TestDerive:
    def test_default_ports_are_the_documented_ones(self) -> None:
        ports = Ports.derive(8000)
        assert ports == Ports()
        assert (ports.gateway, ports.bank_grpc, ports.bank_admin, ports.postgres, ports.clickhouse) == (
            8000,
            9051,
            9101,
            15432,
            18123,
        )

    def test_all_ports_move_with_the_base_port(self) -> None:
        moved = dict(Ports.derive(8010).items())
        assert moved == {name: port + 10 for name, port in Ports().items()}

    def test_ports_are_distinct(self) -> None:
        ports = [port for _, port in Ports.derive(8000).items()]
        assert len(set(ports)) == len(ports)

    @pytest.mark.parametrize("port", [80, 1023, 60000])
    def test_base_port_out_of_range_is_refused(self, port: int) -> None:
        with pytest.raises(PortError, match=rf"PORT={port} .* from 1024 to \d+"):
            Ports.derive(port)


class TestFree:
    def test_free_ports_are_distinct_and_free(self) -> None:
        ports = dict(Ports.free().items())
        assert len(set(ports.values())) == len(ports)
        check_free(ports)

    def test_two_processes_get_different_free_ports(self) -> None:
        script = "import sys; from stack.ports import free_ports; print(*free_ports(300), flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script]
        others = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) for _ in range(3)]
        try:
            given = [free_ports(300)] + [list(map(int, other.stdout.readline().split())) for other in others]  # type: ignore[union-attr]
        finally:
            for other in others:
                other.communicate()
        assert len({port for ports in given for port in ports}) == 4 * 300

    def test_free_port_is_not_returned_twice_in_a_row(self) -> None:
        given = [port for _ in range(20) for port in free_ports(10)]
        assert len(set(given)) == 200


class TestCheckFree:
    def test_error_names_port_process_and_setting(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(PortError) as refusal:
                check_free({"bank (gRPC)": port})
        line = str(refusal.value)
        assert f"port {port} is in use" in line
        assert "bank (gRPC)" in line
        assert "PORT=" in line
        assert "\n" not in line

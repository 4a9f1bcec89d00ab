"""A Kafka broker in one process: librdkafka's mock cluster, on a port of our choosing.

`python -m stack.engines.kafka --port P`. The wire protocol is real and aiokafka works against it unchanged. Nothing
survives the process, a group has one member, and a topic is made on first use with 4 partitions of about 5 MiB.

The mock listens where the kernel pleases and offers no way to choose. A broker that comes back elsewhere after a crash
is something no client is built for, so two small steps move it: the socket behind its listening descriptor is replaced
by ours, and the address in its metadata is changed to match.
"""

import argparse
import ctypes
import os
import signal
import socket
import stat
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_void_p
from pathlib import Path

from confluent_kafka import cimpl

HOST = "127.0.0.1"
BROKER = 1
PRODUCER = 0  # RD_KAFKA_PRODUCER

# The C functions behind `test.mock.num.brokers`: the Python binding makes a mock cluster but gives no hold on it.
_SIGNATURES = {
    "rd_kafka_conf_new": (c_void_p,),
    "rd_kafka_conf_set": (c_int, c_void_p, c_char_p, c_char_p, c_char_p, c_size_t),
    "rd_kafka_new": (c_void_p, c_int, c_void_p, c_char_p, c_size_t),
    "rd_kafka_mock_cluster_new": (c_void_p, c_void_p, c_int),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, c_void_p),
    "rd_kafka_mock_broker_set_host_port": (None, c_void_p, c_int32, c_char_p, c_int),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, c_void_p, c_int32),
    "rd_kafka_mock_broker_set_rtt": (c_int, c_void_p, c_int32, c_int),
}


def serve(listener: socket.socket) -> None:
    """Starts a one-broker cluster that answers on `listener` for as long as this process lives.

    Raises:
        RuntimeError: librdkafka could not make the cluster.
    """
    librdkafka = ctypes.CDLL(cimpl.__file__)
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(librdkafka, name)
        function.restype, function.argtypes = result, arguments
    reason = ctypes.create_string_buffer(512)
    settings = librdkafka.rd_kafka_conf_new()
    librdkafka.rd_kafka_conf_set(settings, b"log_level", b"3", reason, len(reason))  # errors only
    client = librdkafka.rd_kafka_new(PRODUCER, settings, reason, len(reason))
    cluster = client and librdkafka.rd_kafka_mock_cluster_new(client, 1)
    if not cluster:
        raise RuntimeError(f"librdkafka made no mock cluster: {reason.value.decode() or 'no reason given'}")
    address = librdkafka.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    os.dup2(listener.fileno(), _listening_on(int(address.rpartition(":")[2])))
    librdkafka.rd_kafka_mock_broker_set_host_port(cluster, BROKER, HOST.encode(), listener.getsockname()[1])
    librdkafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)  # no second member will come
    # Any order wakes the cluster's thread, which until then still polls the socket it had.
    librdkafka.rd_kafka_mock_broker_set_rtt(cluster, BROKER, 0)


def _listening_on(port: int) -> int:
    """The descriptor of this process's own socket bound to `port`."""
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as found:
                if found.family == socket.AF_INET and found.getsockname()[1] == port:
                    return descriptor
        except OSError:
            continue  # listing the folder opened a descriptor that is gone by now
    raise RuntimeError(f"no socket of this process is bound to port {port}")


def main() -> None:
    """Serves until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m stack.engines.kafka", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    listener = socket.create_server((HOST, parser.parse_args().port), backlog=128)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    serve(listener)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    os._exit(0)  # nothing to keep, and librdkafka's threads need no goodbye


if __name__ == "__main__":
    main()

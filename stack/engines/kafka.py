"""Kafka broker in one process: librdkafka's mock cluster on a chosen port.

Usage: `python -m stack.engines.kafka --port P`. aiokafka works with it unchanged. Data do not
survive the process, a consumer group has one member, and a topic is created on first use with 4 partitions of about
5 MiB.

The mock cluster listens on a random port, but clients expect a restarted broker at the same address. Two steps move the
cluster to the chosen port: our socket replaces the socket behind the cluster's listening descriptor, and the address in
the cluster's metadata is changed.
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

# C functions of the mock cluster; the Python binding does not expose them.
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
    """Start a one-broker cluster that serves on `listener` until this process ends.

    Raises:
        RuntimeError: librdkafka could not create the cluster.
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
        raise RuntimeError(f"librdkafka could not create a mock cluster: {reason.value.decode() or 'no reason given'}")
    address = librdkafka.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    os.dup2(listener.fileno(), _descriptor_of_port(int(address.rpartition(":")[2])))
    librdkafka.rd_kafka_mock_broker_set_host_port(cluster, BROKER, HOST.encode(), listener.getsockname()[1])
    librdkafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)  # there is no second member to wait for
    # Any command wakes the cluster's thread, which still polls the old socket.
    librdkafka.rd_kafka_mock_broker_set_rtt(cluster, BROKER, 0)


def _descriptor_of_port(port: int) -> int:
    """Return the descriptor of this process's socket that is bound to `port`."""
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as candidate:
                if candidate.family == socket.AF_INET and candidate.getsockname()[1] == port:
                    return descriptor
        except OSError:
            continue  # the descriptor was closed since the listing
    raise RuntimeError(f"no socket of this process is bound to port {port}")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m stack.engines.kafka", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    listener = socket.create_server((HOST, parser.parse_args().port), backlog=128)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    serve(listener)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    os._exit(0)  # nothing to save; do not wait for librdkafka's threads


if __name__ == "__main__":
    main()

"""Marks that select the broker of a test. The default is the embedded broker."""

from typing import Final, TypeAlias

import pytest

from stack.engines.apache_kafka import ApacheKafka
from stack.engines.children import Kafka

Broker: TypeAlias = Kafka | ApacheKafka
"""Run the test on both brokers. The embedded one starts empty and has one member per group; Apache Kafka keeps data."""

_APACHE: Final = pytest.param("apache", marks=pytest.mark.slow)  # a JVM: ten seconds of processor time to start

on_both: Final = pytest.mark.parametrize("broker", ["embedded", _APACHE], indirect=True)
on_apache: Final = pytest.mark.parametrize("broker", [_APACHE], indirect=True)
"""Run the test on Apache Kafka: it keeps data and shares a topic among group members."""

"""Marks that select the broker of a test. The default is the embedded broker."""

from typing import Final, TypeAlias

import pytest

from stack.engines.apache_kafka import ApacheKafka
from stack.engines.children import Kafka

Broker: TypeAlias = Kafka | ApacheKafka

_APACHE: Final = pytest.param("apache", marks=pytest.mark.slow)  # its JVM needs ten seconds of processor time to start

on_both: Final = pytest.mark.parametrize("broker", ["embedded", _APACHE], indirect=True)
"""Run the test on each broker."""
on_apache: Final = pytest.mark.parametrize("broker", [_APACHE], indirect=True)
"""Run the test on Apache Kafka only.

Apache Kafka keeps its data when it restarts, and shares a topic among the members of a group. The embedded broker loses
its data and supports one member per group.
"""

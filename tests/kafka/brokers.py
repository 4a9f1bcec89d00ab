"""Which broker a test runs on. Without a mark it is the embedded one."""

from typing import Final, TypeAlias

import pytest

from stack.engines.apache_kafka import ApacheKafka
from stack.engines.children import Kafka

Broker: TypeAlias = Kafka | ApacheKafka
"""Either. The embedded one is empty at every start and takes one member a group; Apache's keeps its data."""

on_both: Final = pytest.mark.parametrize("broker", ["embedded", "apache"], indirect=True)
on_apache: Final = pytest.mark.parametrize("broker", ["apache"], indirect=True)
"""For what the embedded one cannot do: keep its data, share a topic among members."""

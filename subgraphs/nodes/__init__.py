"""Nodes subgraph: the objects of all services by their ids, as Relay requires. It has no service of its own."""

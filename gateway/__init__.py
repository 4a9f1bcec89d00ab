"""The front door: one graph and one REST API over the services."""

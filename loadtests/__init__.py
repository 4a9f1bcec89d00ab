"""Load, benchmarks and proof, against the real thing on loopback."""

"""Figures of the system's speed, measured by `python -m benchmarks`; docs/reference/benchmarks.md defines each of them.

- `figure`, `run`, `results_page`: results, and the page of kept results.
- `*_figures`: the figures of one part of the system; `load_runs`: runs of the bank's figures.
- `*_environment`: the processes that a figure needs; `ledger`, `accounts`: their data; `cpu_usage`: their processor
  time.
- `bank_load`, `http_load`, `subscribers`, `latency_comparison`: load generators, each a separate process.
  `load_generator`, `http1_client` and `http2_client` are the modules that they share.
- `pgbench`, `bare_route`, `gateway_without_auth`, `hive`: programs with which the wallet is compared; `service_stubs`:
  stubs behind the gateway.
"""

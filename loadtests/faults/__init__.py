"""Fault injection: breaks components of the whole system under load and verifies the recovery.

`proxy` interrupts connections and `system` starts the components behind such proxies. `actions` defines the faults,
`schedule` injects them in an order that a seed decides, and `outages` stops one component for a fixed time. `recovery`
detects when everything works again.
"""

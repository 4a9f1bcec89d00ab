"""What breaks, on purpose: a system that is put together so that every part of it can be taken away, and a schedule
that does so while people go on using it.

`proxy` cuts connections, `system` has the parts, `actions` breaks them one at a time, `schedule` strings that together
by a seed, `outages` takes each thing away for longer and says what that cost; `canary` knows when all works again.
"""

"""Load tests: Locust users, a history checker that verifies their answers, and fault injection."""

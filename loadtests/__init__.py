"""Load tests: Locust users, a history checker that verifies the recorded responses, and fault injection."""

"""Creates keys, certificates, secrets and seed data before the services start."""

"""The identity service: users, what they prove themselves by, and the tokens that the rest of the system believes."""

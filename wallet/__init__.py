"""The vocabulary that every part of the system shares: values only, no input or output."""

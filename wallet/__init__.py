"""Domain vocabulary shared by all parts of the system: values and errors, no I/O."""

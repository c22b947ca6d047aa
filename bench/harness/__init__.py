"""The measuring harness behind bench/run and bench/ci."""

"""Test modules that the tests of test support run as test runs of their own; pytest does not collect them by name."""

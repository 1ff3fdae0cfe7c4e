"""Load the shared fixtures."""

pytest_plugins = ["tests.support.fixtures", "tests.support.browser"]

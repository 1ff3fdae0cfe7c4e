"""Read a configuration file: parameters by name, in YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(
                problem=f"{twice} occurs twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_config(path: str) -> dict[str, Any]:
    """Return the parameters of a configuration file.

    Raises
    ------
    InvalidParameter
        If the file cannot be read, or is no mapping of parameters in YAML.
    """
    try:
        found = yaml.load(Path(path).read_bytes(), _UniqueKeys)
    except OSError as error:
        raise InvalidParameter("config", path, f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise InvalidParameter("config", path, f"is not YAML: {line}{reason}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InvalidParameter("config", path, "needs one parameter a line, such as 'target: species'")
    return found


if __name__ == "__main__":  # for the Makefile, which promotes the version after the training
    params = TrainParams(**read_config(sys.argv[1]))
    print(f"{params.name}@{params.stage}")  # noqa: T201

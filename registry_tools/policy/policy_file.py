"""Find and read the file of the policy, `registry.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from registry_tools.errors import PolicyError
from registry_tools.policy.definition import Approvals, Freeze, GateRules, Policy, StageRules, suggest

POLICY_VARIABLE = "REGISTRY_TOOLS_POLICY"
DEFAULT_FILE = "registry.yaml"


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(
                problem=f"{twice} occurs twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def find_policy(path: str | Path | None = None) -> Policy | None:
    """Return the policy from a file, else from REGISTRY_TOOLS_POLICY, else from ./registry.yaml.

    Raises
    ------
    PolicyError
        If the file is missing, although it is named, or is not a valid policy.
    """
    named = path or os.environ.get(POLICY_VARIABLE)
    if not named and not Path(DEFAULT_FILE).exists():
        return None
    return load_policy(Path(named or DEFAULT_FILE))


def require_policy(path: str | Path | None = None) -> Policy:
    """Return the policy that `find_policy` finds, which must exist.

    Raises
    ------
    PolicyError
        If there is no file, or it is not a valid policy.
    """
    found = find_policy(path)
    if found is None:
        raise PolicyError(
            f"there is no policy: write {DEFAULT_FILE}, or name the file with --policy or {POLICY_VARIABLE}"
        )
    return found


def load_policy(path: Path) -> Policy:
    """Read a policy, and check it.

    Raises
    ------
    PolicyError
        If the file cannot be read or is not a valid policy. `problems` has one line for each fault.
    """
    try:
        content = yaml.load(path.read_bytes(), _UniqueKeys)
    except OSError as error:
        raise PolicyError(
            f"policy {path}: {error.strerror}; name another file with --policy or {POLICY_VARIABLE}"
        ) from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # ValueError: a date such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise PolicyError(f"policy {path} is not YAML: {line}{reason}") from error
    if not isinstance(content, dict):
        raise PolicyError(f"policy {path} is not a mapping: it needs `registry` and `models` at least")
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        problems = [f"policy {path}: {_problem(each)}" for each in error.errors(include_url=False)]
        more = f" (and {len(problems) - 1} more; see: registry-tools policy check)" if problems[1:] else ""
        raise PolicyError(problems[0] + more, problems) from error


# The names that the file may have at each place, for suggestions.
_PARTS: dict[str, type[BaseModel]] = {"gates": GateRules, "approvals": Approvals, "freeze": Freeze}


def _problem(error: Any) -> str:
    """Return one line for a fault: the path in the file, the value and the fix."""
    path = [str(part) for part in error["loc"]]
    if path[-1:] == ["[key]"]:  # pydantic adds this for a fault in the name of a pattern or a stage
        path.pop()
    where, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        part = Policy if len(path) == 1 else StageRules if len(path) == 4 else _PARTS[path[3]]
        known = [field.alias or name for name, field in part.model_fields.items()]
        return f"{where}: no such name{suggest(path[-1], known) or '; the names are ' + ', '.join(known)}"
    value = error.get("input")
    if isinstance(value, (str, int, float)) and error["type"] != "value_error":
        message = f"{str(value)[:60]!r}: {message}"
    return f"{where}: {' '.join(message.split())}" if where else message

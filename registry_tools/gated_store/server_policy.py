"""The policy of the server, read again for each request that depends on it."""

from __future__ import annotations

import os
from pathlib import Path

from registry_tools.errors import PolicyError
from registry_tools.gated_store.refusal import refused
from registry_tools.policy.definition import Policy
from registry_tools.policy.policy_file import POLICY_VARIABLE, load_policy


def server_policy() -> Policy:
    """Return the policy of the file that the server's variable names.

    Raises
    ------
    MlflowException
        If there is no policy, or if it is not valid. Every stage stays where it is then.
    """
    path = os.environ.get(POLICY_VARIABLE)
    if not path:
        raise refused(
            f"the server has no policy, so no stage moves; set {POLICY_VARIABLE} to the path of a "
            "registry.yaml and restart the server"
        )
    try:
        return load_policy(Path(path))
    except PolicyError as error:
        raise refused(f"{error}; no stage moves until the server can read its policy") from error

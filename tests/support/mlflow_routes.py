"""All routes of MLflow's server, and generated bodies for their requests."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Pools = Mapping[str, Sequence[Any]]  # the values of a field, by its name
_PLACE = re.compile(r"<(?:\w+:)?(\w+)>|{(\w+)(?::\w+)?}")


@dataclass(frozen=True)
class Route:
    """A method and a path, with the message that describes its body if there is one."""

    method: str
    path: str
    message: Any = None

    @property
    def is_of_registry(self) -> bool:
        return self.message is not None and "model_registry" in self.message.file.name

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


@functools.cache
def all_routes() -> list[Route]:
    """Return the routes that MLflow lists, those of the basic-auth app, and those of FastAPI."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the modules of the server warn about each other
        from mlflow.server.auth import routes as auth_routes
        from mlflow.server.fastapi_app import app as fastapi_app
        from mlflow.server.handlers import get_endpoints

    found = {}
    for path, message, methods in get_endpoints(lambda message: message):
        for method in methods:
            found[method, path] = Route(method, path, getattr(message, "DESCRIPTOR", None))
    for name, path in vars(auth_routes).items():
        if name.isupper() and isinstance(path, str):
            for method in ("GET", "POST", "PATCH", "DELETE"):
                found.setdefault((method, path), Route(method, path))
    for path, methods in fastapi_app.openapi()["paths"].items():
        for method in methods:
            found.setdefault((method.upper(), path), Route(method.upper(), path))
    return list(found.values())


def bodies(route: Route, pools: Pools) -> st.SearchStrategy[dict[str, Any]]:
    """Return bodies with values from the pools: those of the message's fields, or a few of the pools."""
    if route.message is not None:
        return _message(route.message, pools)
    few = st.lists(st.sampled_from(sorted(pools)), unique=True, max_size=6)
    return few.flatmap(
        lambda names: st.fixed_dictionaries({name: st.sampled_from(pools[name]) for name in names})
    )


def fill(path: str, body: Mapping[str, Any]) -> str:
    """Return a path with the values of the body in its variable parts."""
    return _PLACE.sub(lambda part: str(body.get(part[1] or part[2], "x")), path)


def _message(message: Any, pools: Pools, depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    known = {field.name: _value(field, pools, depth) for field in message.fields}
    named = {name: value for name, value in known.items() if name in pools}
    others = {name: value for name, value in known.items() if name not in pools}
    return st.fixed_dictionaries(named, optional=others)


def _value(field: Any, pools: Pools, depth: int) -> st.SearchStrategy[Any]:
    if field.name in pools and field.message_type is None:
        one: st.SearchStrategy[Any] = st.sampled_from(pools[field.name])
    elif field.message_type is not None:
        one = _message(field.message_type, pools, depth - 1) if depth else st.just({})
    elif field.cpp_type == field.CPPTYPE_STRING:
        one = st.sampled_from(["", "x", "0"])
    elif field.cpp_type == field.CPPTYPE_BOOL:
        one = st.booleans()
    else:
        one = st.sampled_from([0, 1, 7])
    return st.lists(one, max_size=3) if field.is_repeated else one

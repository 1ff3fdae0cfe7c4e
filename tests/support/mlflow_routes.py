"""All routes of MLflow's server, and generated bodies for their requests."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

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


def random_body(route: Route, pools: Pools, random: Random) -> dict[str, Any]:
    """Return a body with values from the pools: those of the message's fields, or a few of the pools."""
    if route.message is not None:
        return _message(route.message, pools, random)
    return {name: random.choice(pools[name]) for name in random.sample(sorted(pools), random.randrange(6))}


def fill(path: str, body: Mapping[str, Any]) -> str:
    """Return a path with the values of the body in its variable parts."""
    return _PLACE.sub(lambda part: str(body.get(part[1] or part[2], "x")), path)


def _message(message: Any, pools: Pools, random: Random, depth: int = 2) -> dict[str, Any]:
    body = {}
    for field in message.fields:
        if field.name in pools or random.random() < 0.3:
            count = random.randrange(4) if field.is_repeated else 1
            values = [_value(field, pools, random, depth) for _ in range(count)]
            body[field.name] = values if field.is_repeated else values[0]
    return body


def _value(field: Any, pools: Pools, random: Random, depth: int) -> Any:
    if field.message_type is not None:
        return _message(field.message_type, pools, random, depth - 1) if depth else {}
    if field.name in pools:
        return random.choice(pools[field.name])
    if field.cpp_type == field.CPPTYPE_STRING:
        return random.choice(["", "x", "0"])
    return random.choice([True, False] if field.cpp_type == field.CPPTYPE_BOOL else [0, 1, 7])

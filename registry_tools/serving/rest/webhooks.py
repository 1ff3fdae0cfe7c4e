"""The route `POST /webhooks/mlflow`, which takes MLflow's webhooks about aliases and polls the stage at once.

A webhook only says that a stage may have moved. The registry says which version it holds, so a webhook that
is replayed, late or lost changes nothing but the time of a poll.
"""

from __future__ import annotations

import hmac
import re
import time
from base64 import b64encode
from hashlib import sha256
from typing import Any

import orjson

from registry_tools.refs import parse_ref
from registry_tools.serving.errors import RequestRefused
from registry_tools.serving.rest.messages import Reply, Request, parse_json
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings

_MOST_SECONDS = 300  # the largest difference between the clocks, delivery included
_ENTITY = "model_version_alias"


async def receive(service: InferenceService, request: Request) -> Reply:
    """Poll the registry soon if a signed webhook says that a followed stage may have moved."""
    secrets = service.settings.webhook_secrets
    if not secrets:
        raise RequestRefused(404, "this server takes no webhooks: start it with --webhook-secret-file")
    _check_signature(request, secrets)
    if not _concerns(parse_json(request.body), service.settings):
        return _reply(200, "ignored: this server does not follow that stage")
    service.poll_soon()
    return _reply(202, "the server polls the registry")


def _check_signature(request: Request, secrets: tuple[str, ...]) -> None:
    """Check that a webhook is signed with one of the secrets, and that it is recent.

    Raises
    ------
    RequestRefused
        401 if it is not.
    """
    headers = request.headers
    sent_at = headers.get(b"x-mlflow-timestamp", b"")
    signed = b".".join((headers.get(b"x-mlflow-delivery-id", b""), sent_at, request.body))
    given = headers.get(b"x-mlflow-signature", b"")
    # Compare with all, so that the time does not reveal the matching one.
    expected = [b"v1," + b64encode(hmac.digest(secret.encode(), signed, sha256)) for secret in secrets]
    matches = [hmac.compare_digest(given, each) for each in expected]
    if not any(matches):
        raise _unauthorized("the signature of the webhook is missing or wrong: use the server's secret")
    if not re.fullmatch(rb"\d{1,12}", sent_at) or abs(time.time() - int(sent_at)) > _MOST_SECONDS:
        raise _unauthorized(
            f"the webhook was not sent within {_MOST_SECONDS} s: compare the clocks of both servers"
        )


def _unauthorized(message: str) -> RequestRefused:
    return RequestRefused(401, message, [(b"www-authenticate", b"X-MLflow-Signature")])


def _concerns(content: Any, settings: Settings) -> bool:
    """Return whether a webhook is about an alias that this server or its shadow follows.

    Raises
    ------
    RequestRefused
        400 if the content is not MLflow's.
    """
    try:
        entity, data = content["entity"], content["data"]
        if entity != _ENTITY:
            return False
        moved = data["name"], data["alias"].lower()  # the registry also takes `Production` for the stage
    except (TypeError, KeyError, AttributeError):
        raise RequestRefused(400, "the body is not a webhook of MLflow") from None
    followed = (parse_ref(text) for text in (settings.ref, settings.shadow) if text)
    return moved in [(ref.name, ref.stage) for ref in followed]


def _reply(status: int, message: str) -> Reply:
    return Reply(orjson.dumps({"message": message}), status)


ROUTES = {"/webhooks/mlflow": {"POST": receive}}

"""What `/model` tells about the server, and what it keeps to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_tools.errors import InputError
from registry_tools.mlflow_store import stages
from registry_tools.serving.errors import hide_paths, public_message
from tests.support.registries import Place
from tests.support.servers import eventually
from tests.support.serving import Serve


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/tmp/model-x1/MLmodel: no YAML", "MLmodel: no YAML"),
        ("no file '/var/lib/a/model.skops'", "no file 'model.skops'"),
        ("cannot read file:///srv/models/1/MLmodel", "cannot read MLmodel"),
        ("unable to open sqlite:////srv/mlflow.db", "unable to open mlflow.db"),
        ("http://registry:5000 does not respond", "http://registry:5000 does not respond"),
        ("POST /-/refresh, columns a/b and 'c/d'", "POST /-/refresh, columns a/b and 'c/d'"),
    ],
)
def test_a_path_is_reduced_to_the_name_of_its_file(text: str, shown: str) -> None:
    assert hide_paths(text) == shown


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (InputError("https://ada:secret@registry:5000/api/2.0?x=1 fails"), "https://registry:5000 fails"),
        (InputError("/tmp/model-x1/MLmodel: no YAML"), "MLmodel: no YAML"),
        (FileNotFoundError(2, "No such file", "/srv/a"), "FileNotFoundError: No such file"),
        (ValueError("no '/srv/models/a'"), "ValueError: no 'a'"),
    ],
)
def test_the_public_message_of_an_error_has_no_credentials_and_no_path(error: Exception, shown: str) -> None:
    assert public_message(error) == shown


@pytest.mark.slow
def test_the_reason_that_a_version_does_not_take_over_has_no_path(
    serve: Serve, model: str, local: Place
) -> None:
    client = serve(f"{model}@production")
    folder = Path(local.client.get_model_version_download_uri(model, "2").removeprefix("file://"))
    away = folder.rename(folder.with_name("away"))  # and back: all models of the tests have these files
    try:
        stages.move_alias(local.client, model, "production", 2)
        eventually(lambda: client.get("/model").json()["candidate"] is not None)
        assert folder.name in client.get("/model").json()["candidate"]["error"]
        assert str(folder.parent) not in client.get("/model").text
    finally:
        away.rename(folder)

"""Model references and stage names."""

from __future__ import annotations

import pytest

from registry_tools.errors import InvalidReference
from registry_tools.refs import ModelRef, parse_ref, stage_name


@pytest.mark.parametrize("prefix", ["", "models:/"])
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("iris@production", ModelRef("iris", stage="production")),
        ("iris@PRODUCTION", ModelRef("iris", stage="production")),
        ("iris/Staging", ModelRef("iris", stage="staging")),
        ("iris/3", ModelRef("iris", version=3)),
        ("my model.v2/12", ModelRef("my model.v2", version=12)),
        ("iris@champion_2", ModelRef("iris", stage="champion_2")),
    ],
)
def test_the_forms_of_a_reference(prefix: str, text: str, meaning: ModelRef) -> None:
    assert parse_ref(prefix + text) == meaning


def test_a_stage_may_come_apart() -> None:
    assert parse_ref("iris", stage="Production") == ModelRef("iris", stage="production")
    with pytest.raises(InvalidReference, match="already names a version or a stage"):
        parse_ref("iris/3", stage="production")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty model reference"),
        ("iris", "names no version and no stage"),
        ("iris@", "names no version and no stage"),
        ("@production", "model name '' is not usable"),
        ("iris@two words", "not a legal alias"),
        ("iris/latest", "MLflow reserves"),
        ("iris@v3", "MLflow reserves"),
        ("iris/None", "MLflow reserves"),
        ("iris@3", "MLflow reserves"),
        ("a/b@production", "model name 'a/b'"),
        ("models:/m-0123", "names no version"),
        ("iris/99999999999999999999", "no version has a number that large"),
        ("../3", "model name '..'"),
        ("a\nb/3", "is not usable"),
    ],
)
def test_an_invalid_reference_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidReference, match=reason):
        parse_ref(text)


@pytest.mark.parametrize("text", ["penguins", "penguins@", "penguins/", "models:/penguins"])
def test_a_reference_without_a_version_shows_the_forms_with_its_own_name(text: str) -> None:
    with pytest.raises(
        InvalidReference, match=r"write penguins@production, penguins/3 or penguins/Production$"
    ):
        parse_ref(text)


def test_a_reference_prints_as_it_is_written() -> None:
    assert str(parse_ref("models:/iris/Production")) == "iris@production"
    assert str(parse_ref("iris/3")) == "iris/3"


@pytest.mark.parametrize("text", ["stage!", "a b", "", " "])
def test_a_stage_is_a_legal_alias(text: str) -> None:
    with pytest.raises(InvalidReference, match="not a legal alias"):
        stage_name(text)

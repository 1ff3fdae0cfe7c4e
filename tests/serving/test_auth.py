"""The keys of clients, and the file that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_tools.errors import InputError
from registry_tools.serving.auth import ApiKeys, read_key_file


@pytest.mark.parametrize(
    ("authorization", "key", "allowed"),
    [
        (b"Bearer one", None, True),
        (b"bearer  two ", None, True),
        (b"", b"two", True),
        (b"Bearer token-of-a-proxy", b"one", True),
        (b"Basic one", None, False),
        (b"one", None, False),
        (b"Bearer three", b"four", False),
        (b"Bearer ", b"", False),
        (b"", None, False),
    ],
)
def test_a_key_is_known_in_either_header(authorization: bytes, key: bytes | None, allowed: bool) -> None:
    assert ApiKeys(["one", "two"]).allows(authorization, key) is allowed


def test_without_keys_every_client_is_allowed() -> None:
    assert ApiKeys([]).allows(b"", None)
    assert ApiKeys([]).allows(b"Bearer x", b"y")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_key_file_may_have_comments_empty_lines_and_a_byte_order_mark(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "keys"
    file.write_text("one\r\n# of Ada\n\n  two  \n  # of Ben\nthree#3\n", encoding=encoding)
    assert read_key_file(str(file)) == ("one", "two", "three#3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# none\n\n", "has no key; write one on each line"),
        (b"one\nsecret # of Ada\n", "line 2: a key has no spaces"),
        (b"secret\x00\n", "line 1: a key has no spaces or control characters"),
        ("one\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_a_key_file_without_usable_keys_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_key_file(str(file))
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: the key file cannot be read: No such file"):
        read_key_file(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere: the secret file cannot be read: No such file"):
        read_key_file(str(tmp_path / "nowhere"), "secret")

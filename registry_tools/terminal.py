"""Make text from a registry or a model safe to print: without escape sequences or forged lines."""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any

# The control characters C0, DEL and C1, which begin escape sequences and lines; line and paragraph
# separators; invisible marks, and marks that change the direction of text; lone surrogates, which
# cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return one line of text with each unsafe character escaped as in Python, such as `\x1b`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Escape the unsafe characters of a text, and keep its line breaks."""
    return "\n".join(printable(line.removesuffix("\r")) for line in text.split("\n"))


def printable_json(text: str) -> str:
    r"""Return JSON text with the unsafe characters in its strings escaped, such as `\u009b`."""
    # Outside strings, JSON has no unsafe characters except the line feeds of its layout.
    return re.sub(f"(?!\n){_UNSAFE.pattern}", _json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def log_to_stderr(level: int, line: str) -> None:
    """Make all loggers of this process write to stderr, in the format `line`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter(line))
    logging.basicConfig(level=level, handlers=[handler])


def log_times() -> None:
    """Begin each log line of this process with its time and level."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _PrintableFormatter):
            handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))


class _PrintableFormatter(logging.Formatter):
    """Formats a log record as one line, and its traceback below; times are UTC."""

    converter = time.gmtime  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback."""
        return printable_lines(super().formatException(ei))

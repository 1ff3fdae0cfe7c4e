"""Messages between processes: what one side writes, the other reads, or learns that it ended."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import time

import numpy as np
import pytest

from registry_tools.processes import call_in_process, decode_message, encode_message, read_message


def test_an_error_that_names_a_path_outside_utf_8_arrives() -> None:
    head = {"error": os.fsdecode(b"/cache/\xff is not readable")}
    assert decode_message(encode_message(head))[0] == head


def test_a_body_of_numbers_arrives_whole() -> None:
    numbers = np.arange(3.0)
    received = read_message(io.BytesIO(encode_message({}, numbers)))
    assert received is not None
    assert np.frombuffer(received[1]).tolist() == [0, 1, 2]


def test_a_message_that_was_cut_off_is_the_end_of_the_other_side() -> None:
    message = encode_message({"kind": "rows"}, b"body")
    assert all(read_message(io.BytesIO(message[:length])) is None for length in range(len(message)))


def test_a_call_in_a_process_returns_its_result() -> None:
    assert call_in_process(math.sqrt, 4.0, math.inf) == 2.0


def test_a_call_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimeoutError, match=r"took longer than 0\.2 s"):
        call_in_process(time.sleep, 600, 0.2)
    assert multiprocessing.active_children() == []


def test_a_call_whose_process_is_ended_says_so() -> None:
    with pytest.raises(ChildProcessError, match="ended from outside"):
        call_in_process(os._exit, 1, math.inf)

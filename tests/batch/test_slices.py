"""How the rows of a job are divided between processes."""

from __future__ import annotations

import heapq
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from registry_tools.batch.job import ScoringJob
from registry_tools.batch.slices import cut_row_groups, cut_text
from registry_tools.files.input_files import open_files

M = 1_000_000


def files(*sizes: tuple[int, ...]) -> Any:
    """Return files with row groups of these sizes."""
    total = sum(map(sum, sizes))
    names = [SimpleNamespace(name=str(number)) for number in range(len(sizes))]
    return SimpleNamespace(files=names, row_groups=sizes, total=total)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize(
    "sizes",
    [
        ((M,) * 5,),
        ((50 * M,),),
        ((3 * M, *[M // 2] * 4),),
        ((5,), (), (0,), (0, 7, 0)),
        ((1000,) * 999, (M,)),
    ],
)
def test_every_row_is_in_one_slice(sizes: tuple[tuple[int, ...], ...], workers: int) -> None:
    found = list(cut_row_groups(files(*sizes), workers))
    for number, groups in enumerate(sizes):
        end = 0
        for piece in (one for one in found if one.file.name == str(number)):
            assert piece.first_row == end
            assert piece.rows > 0
            before = sum(groups[: piece.row_groups[0]])
            assert piece.first_row == before + piece.skip
            assert piece.skip + piece.rows <= sum(groups[group] for group in piece.row_groups)
            end += piece.rows
        assert end == sum(groups)


@pytest.mark.parametrize(
    ("sizes", "workers", "most"),
    [
        ((50 * M,), 2, 1.01),  # one large row group
        ((M,) * 5, 2, 1.01),
        ((3 * M, M, M // 2, M // 2, M // 4), 2, 1.15),  # five uneven ones
        ((M // 4, 3 * M, M // 2, M), 4, 1.25),
        ((M,) * 100, 3, 1.02),
    ],
)
def test_all_processes_end_at_about_the_same_time(sizes: tuple[int, ...], workers: int, most: float) -> None:
    ends = [0] * workers
    for piece in cut_row_groups(files(sizes), workers):
        heapq.heappush(ends, heapq.heappop(ends) + piece.rows)  # the first that is idle takes the next
    assert max(ends) <= most * sum(sizes) / workers


def test_a_scratch_file_that_cannot_be_written_is_not_an_error_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError):
        list(cut_text(open_files(str(tmp_path / "in.csv")), tmp_path / "missing"))


def test_the_parts_of_very_many_slices_are_in_the_order_of_their_names() -> None:
    job: Any = SimpleNamespace(parts=Path("out"), form="parquet")
    names = [ScoringJob.part(job, number).name for number in (9, 99_999, 100_000, 1_000_000)]
    assert names == sorted(names)


def test_small_row_groups_are_joined_and_few_rows_are_not_divided() -> None:
    assert len(list(cut_row_groups(files((1000,) * 1000), 2))) <= 10
    (piece,) = cut_row_groups(files((1000, 500)), 8)
    assert piece.row_groups == (0, 1)

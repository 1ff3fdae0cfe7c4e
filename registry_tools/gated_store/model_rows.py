"""The rows of one registered model in the registry database, read and written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from mlflow.entities.model_registry.model_version_stages import STAGE_ARCHIVED
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModel,
    SqlRegisteredModelAlias,
    SqlRegisteredModelTag,
)
from sqlalchemy.orm import Session

from registry_tools.gated_store.refusal import refused
from registry_tools.policy.tag_names import HEAD, head_tag
from registry_tools.refs import LEGACY_STAGES


class ModelRows:
    """A registered model whose row is locked until the end of the transaction."""

    def __init__(self, session: Session, workspace: str, name: str) -> None:
        self.session = session
        self.workspace = workspace
        self.name = name

    def lock(self) -> bool:
        """Lock the model until the end of the transaction; return False if it does not exist.

        An UPDATE takes the lock of the row in PostgreSQL and the write lock of the database in SQLite. It
        must be the first statement of the transaction: what follows then reads the newest values.
        """
        unchanged = {"last_updated_time": SqlRegisteredModel.last_updated_time}
        update = sa.update(SqlRegisteredModel).where(*self._of(SqlRegisteredModel)).values(unchanged)
        result: Any = self.session.execute(update, execution_options={"synchronize_session": False})
        return bool(result.rowcount)

    def _of(self, table: Any) -> Iterator[sa.ColumnElement[bool]]:
        yield table.workspace == self.workspace
        yield table.name == self.name

    def aliases(self) -> dict[str, int]:
        """Return the version of each alias, in any spelling."""
        table: Any = SqlRegisteredModelAlias
        rows = self.session.execute(sa.select(table.alias, table.version).where(*self._of(table)))
        return {row[0]: row[1] for row in rows}

    def holder(self, stage: str) -> int | None:
        """Return the version in a stage; None if it is empty. Another spelling of the alias counts too."""
        aliases = self.aliases()
        other = (version for alias, version in aliases.items() if alias.lower() == stage)
        return aliases.get(stage, next(other, None))

    def heads(self) -> dict[str, str]:
        """Return the tags with the number of moves of a stage."""
        table: Any = SqlRegisteredModelTag
        keys = self.session.execute(
            sa.select(table.key, table.value).where(*self._of(table), table.key.startswith(f"{HEAD}."))
        )
        return {row[0]: row[1] for row in keys}

    def head(self, stage: str) -> int:
        """Return the number of moves of a stage."""
        count = self.heads().get(head_tag(stage), "0")
        if not count.isdecimal():  # written before the registry was gated
            raise refused(
                f"{head_tag(stage)} of {self.name} is {count!r} and not a number; correct it in the database"
            )
        return int(count)

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version."""
        table: Any = SqlModelVersionTag
        rows = self.session.execute(
            sa.select(table.key, table.value).where(*self._of(table), table.version == version)
        )
        return {row[0]: row[1] for row in rows}

    def legacy_stages(self) -> set[str]:
        """Return the legacy stages that versions have, in lower case."""
        table: Any = SqlModelVersion
        rows = self.session.execute(sa.select(table.current_stage).where(*self._of(table)).distinct())
        return {row.current_stage.lower() for row in rows}

    def mirrored_stages(self) -> dict[int, str]:
        """Return the legacy stage of each version that an alias asks for; production counts first."""
        held = {self.holder(stage): LEGACY_STAGES[stage] for stage in ("staging", "production")}
        return {version: stage for version, stage in held.items() if version is not None}

    def mirror(self, stage: str) -> None:
        """Set MLflow's legacy stage from the alias, for the versions that entered or left a stage."""
        if stage not in LEGACY_STAGES:
            return
        table: Any = SqlModelVersion
        wanted = self.mirrored_stages()
        concerned = sa.or_(
            table.current_stage == LEGACY_STAGES[stage], table.version == (self.holder(stage) or 0)
        )
        for row in self.session.scalars(sa.select(table).where(*self._of(table), concerned)):
            row.current_stage = wanted.get(row.version, STAGE_ARCHIVED)

    def delete_aliases(self, stage: str, keep: str | None) -> None:
        """Delete all spellings of the alias of a stage but one."""
        table: Any = SqlRegisteredModelAlias
        for alias in self.aliases():
            if alias.lower() == stage and alias != keep:
                self.session.execute(sa.delete(table).where(*self._of(table), table.alias == alias))

"""MLflow's registry store with a guard before each request that could move a protected stage.

Each guard and MLflow's own method that follows it work in one transaction, which begins with the lock of
the registered model. So of two requests that move a stage at the same time, the second one sees what the
first one did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Literal

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModelTag
from mlflow.entities.model_registry.model_version_stages import get_canonical_stage
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from registry_tools.errors import MoveRefused, UnsupportedOperation, VerificationError
from registry_tools.gated_store import tag_rules
from registry_tools.gated_store.caller import authenticated_user
from registry_tools.gated_store.model_rows import ModelRows
from registry_tools.gated_store.refusal import refused
from registry_tools.gated_store.server_policy import server_policy
from registry_tools.gated_store.transaction import joining, shared
from registry_tools.policy.decision import Grant, Move, decide
from registry_tools.policy.definition import Policy
from registry_tools.policy.records import Held
from registry_tools.policy.tag_names import (
    APPROVAL,
    DIGEST_TAG,
    EVIDENCE_DIGEST_TAG,
    HEAD,
    head_tag,
    held_tag,
)

Action = Literal["promote", "rollback", "force"]


class GatedStore(SqlAlchemyStore):
    """A registry store that asks the policy before a protected stage moves."""

    def __init__(self, db_uri: str, read_db_uri: str | None = None) -> None:
        super().__init__(db_uri, read_db_uri=read_db_uri)
        self.ManagedSessionMaker = joining(self.ManagedSessionMaker)

    @contextmanager
    def _locked(self, name: str) -> Iterator[ModelRows]:
        """Lock a model, and let all methods of this store work in the same transaction."""
        with self.ManagedSessionMaker(read_only=False) as session:
            model = ModelRows(session, self._get_active_workspace(), name)
            if not model.lock():
                self._get_registered_model(session, name)  # raises MLflow's error for a missing model
                raise refused(f"model {name} was created in the meantime; repeat the request")
            with shared(session):
                yield model

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Set an alias; that of a protected stage only if the policy allows the move."""
        with self._locked(name) as model:
            policy, stage = server_policy(), alias.lower()
            if policy.stage(name, stage) is None:
                super().set_registered_model_alias(name, alias, version)
                return
            if alias != stage:
                raise refused(f"{alias} is another spelling of the stage {stage}; set the alias {stage}")
            number = self._get_sql_model_version(model.session, name, version).version
            move = _move(model, stage, number)
            grant = _decide(policy, move)
            super().set_registered_model_alias(name, stage, number)
            model.delete_aliases(stage, keep=stage)
            if grant.action != "unchanged":
                self._record(move, grant.action, grant)
                model.mirror(stage)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias; that of a protected stage only with the permission to force."""
        with self._locked(name) as model:
            policy, stage = server_policy(), alias.lower()
            holder = model.holder(stage)
            if policy.stage(name, stage) is None or holder is None:
                super().delete_registered_model_alias(name, alias)
                return
            move = _move(model, stage, holder)
            self._record(move, "force", replace(_forced(policy, move), envelope=_last_verdict(move)))
            model.delete_aliases(stage, keep=None)
            model.mirror(stage)

    def _record(self, move: Move, action: Action, grant: Grant) -> None:
        """Count a move, and write down how its version last entered or left the stage."""
        head, now, digest = move.head + 1, move.now.isoformat(timespec="seconds"), move.digests["model"]
        held = Held(head, grant.envelope, digest, move.user, now, action, grant.reason)
        count = RegisteredModelTag(head_tag(move.stage), str(head))
        super().set_registered_model_tag(move.model, count)
        super().set_model_version_tag(
            move.model, move.version, ModelVersionTag(held_tag(move.stage), held.to_text())
        )

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Set MLflow's legacy stage; for a protected stage only as its alias says."""
        target = get_canonical_stage(stage)
        with self._locked(name) as model:
            policy = server_policy()
            row = self._get_sql_model_version(model.session, name, version)
            wanted = model.mirrored_stages().get(row.version)
            if target != wanted:
                for each in (target, row.current_stage):
                    if policy.stage(name, each) is not None:
                        raise refused(
                            f"{each} of {name} follows the alias {each.lower()}; use: registry-tools "
                            f"promote {name}/{row.version} --to {each.lower()}"
                        )
            moved: ModelVersion = super().transition_model_version_stage(
                name, row.version, target, archive_existing_versions
            )
            return moved

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version that holds no protected stage."""
        with self._locked(name) as model:
            policy = server_policy()
            row = self._get_sql_model_version(model.session, name, version)
            held = {alias for alias, number in model.aliases().items() if number == row.version}
            for stage in sorted({*held, row.current_stage}):
                if policy.stage(name, stage) is not None:
                    raise refused(
                        f"version {row.version} of {name} holds {stage.lower()}; promote another one first"
                    )
            super().delete_model_version(name, row.version)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model none of whose protected stages was ever held."""
        with self._locked(name) as model:
            _check_unused(model, server_policy(), name, "deleted")
            super().delete_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a model unless a stage is protected under its old or its new name."""
        with self._locked(name) as model:
            policy = server_policy()
            for each in (name, new_name):
                _check_unused(model, policy, each, f"renamed to {new_name}")
            return super().rename_registered_model(name, new_name)

    def create_registered_model(self, name: str, tags: Any = None, *rest: Any, **options: Any) -> Any:
        """Create a model without the tags that only this store writes."""
        return super().create_registered_model(name, tag_rules.model_tags(tags), *rest, **options)

    def create_model_version(
        self, name: str, source: str, run_id: str | None = None, tags: Any = None, *rest: Any, **options: Any
    ) -> ModelVersion:
        """Create a version, and write down the user."""
        kept = tag_rules.version_tags(tags, authenticated_user())
        version: ModelVersion = super().create_model_version(name, source, run_id, kept, *rest, **options)
        return version

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a model, but not the number of moves of a stage."""
        _check_model_tag(tag.key)
        super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a model, but not the number of moves of a stage."""
        _check_model_tag(key)
        super().delete_registered_model_tag(name, key)

    def set_model_version_tag(self, name: str, version: str, tag: ModelVersionTag) -> None:
        """Set a tag of a version as far as the policy allows it."""
        if tag_rules.is_written_by_store(tag.key):
            raise refused(f"only the registry writes {tag.key}")
        if not tag_rules.is_stamped(tag.key) and tag.key not in tag_rules.DIGESTS:
            super().set_model_version_tag(name, version, tag)
            return
        with self._locked(name) as model:
            if tag.key in tag_rules.DIGESTS:
                self._check_digest(model, version, tag.key, tag.value)
            else:
                head, now = model.head(tag_rules.stage_of(tag.key)), datetime.now(timezone.utc)
                tag = tag_rules.stamp(server_policy(), name, tag, authenticated_user(), now, head)
            super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag of a version as far as the policy allows it."""
        if tag_rules.is_written_by_store(key):
            raise refused(f"only the registry writes {key}")
        if key.startswith(f"{APPROVAL}."):
            tag_rules.check_approver(key, authenticated_user())
        with self._locked(name) as model:
            if key in tag_rules.DIGESTS:
                self._check_digest(model, version, key, None)
            super().delete_model_version_tag(name, version, key)

    def _check_digest(self, model: ModelRows, version: str, key: str, value: str | None) -> None:
        number = self._get_sql_model_version(model.session, model.name, version).version
        present = model.tags(number).get(key)
        if present not in (None, value) and _protected_stages(model, server_policy(), model.name):
            raise refused(
                f"{key} of version {number} of {model.name} cannot change, because the model has a "
                "protected stage; register the files as a new version"
            )


def _move(model: ModelRows, stage: str, version: int) -> Move:
    """Return a move with the present state of the database."""
    tags = model.tags(version)
    digests = {"model": tags.get(DIGEST_TAG), "evidence": tags.get(EVIDENCE_DIGEST_TAG)}
    return Move(
        model=model.name,
        stage=stage,
        version=version,
        holder=model.holder(stage),
        head=model.head(stage),
        digests=digests,
        tags=tags,
        user=authenticated_user(),
        now=datetime.now(timezone.utc),
    )


def _decide(policy: Policy, move: Move) -> Grant:
    try:
        return decide(policy, move)
    except (MoveRefused, UnsupportedOperation) as error:
        raise refused(error) from error


def _forced(policy: Policy, move: Move) -> Grant:
    """Return the permission to empty a stage: `force.STAGE` of the version that holds it."""
    try:
        grant = decide(policy, replace(move, holder=None))
    except (MoveRefused, UnsupportedOperation):
        grant = None
    if grant is None or grant.action != "force":
        raise refused(
            f"{move.stage} of {move.model} is protected and is emptied only by force; use: registry-tools "
            f"unset {move.model} --stage {move.stage} --force --reason TEXT"
        )
    return grant


def _last_verdict(move: Move) -> str | None:
    """Return the verdict with which a version last entered a stage: a later rollback to it needs it."""
    try:
        return Held.from_text(move.tags.get(held_tag(move.stage), "")).envelope
    except VerificationError:  # it held the stage before the registry was gated
        return None


def _protected_stages(model: ModelRows, policy: Policy, name: str) -> list[str]:
    """Return the stages of a model that were ever moved, or are held and protected under a name."""
    used = {*(alias.lower() for alias in model.aliases()), *model.legacy_stages()}
    moved = {key.removeprefix(f"{HEAD}.") for key in model.heads()}
    return sorted({stage for stage in used if policy.stage(name, stage) is not None} | moved)


def _check_unused(model: ModelRows, policy: Policy, name: str, done: str) -> None:
    stages = _protected_stages(model, policy, name)
    if stages:
        raise refused(f"{model.name} cannot be {done}, because {stages[0]} of {name} is a protected stage")


def _check_model_tag(key: str) -> None:
    if key.startswith(f"{HEAD}."):
        raise refused(f"only the registry writes {key}")

"""Reads a registry through MLflow's client, as far as `modelready-reconcile` needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from google.protobuf.json_format import MessageToJson
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from modelready.event import complete, model_ready
from modelready.mlflow import facts
from modelready.mlflow.mlmodel import ModelFiles
from modelready.mlflow.reconciliation import Change, Slot, Snapshot, State
from modelready.mlflow.settings import ALIAS, STAGE, TAG, VERSION, Settings

GONE = "RESOURCE_DOES_NOT_EXIST"
PAGE = 100


class RegistryReader:
    """Raises MlflowException, or what MLflow's client raises, where the registry cannot be read."""

    def __init__(self, client: MlflowClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._files = ModelFiles(settings.mlmodel_seconds)
        self._kinds = {trigger.kind for trigger in settings.triggers}

    def snapshot(self, known: State) -> Snapshot:
        """The slots of all models that the settings name. A model that `known` has is gone if MLflow says so alone."""
        found: dict[Slot, str] = {}
        for name in sorted({*self._names(), *(slot.name for slot in known.slots)}):
            if self._settings.names(name):
                found.update(self._slots(name))
        return found

    def event_of(self, change: Change, state: State) -> str | None:
        """The change's event as JSON; None where the version is gone, a prompt, or without the tags that are needed."""
        name, version = change.slot.name, change.version
        found = _unless_gone(lambda: self._client.get_model_version(name, version))
        model = _unless_gone(lambda: self._client.get_registered_model(name))
        if found is None or model is None:
            return None
        tags = {**model.tags, **found.tags}
        if facts.is_prompt(tags) or not self._settings.admits(tags):
            return None
        place = self._client.get_model_version_download_uri(name, version)
        if not place:
            facts.log_once("version %s of model %s has no source, so it gets no event", version, name)
            return None
        fields = facts.fields(
            name,
            version,
            place,
            described=self._files.describe(place),
            version_tags=found.tags,
            model_tags=model.tags,
        )
        source, kind = self._settings.source, change.slot.kind
        fields["source"] = source
        fields["run_id"] = found.run_id or ""
        fields["metrics"] = self._metrics(found.run_id)
        if kind in {ALIAS, STAGE}:
            fields["alias"] = change.key
        if kind == ALIAS:
            fields["previous_version"] = change.previous
        if kind == VERSION:
            fields["occurred_at"] = datetime.fromtimestamp(int(change.value) / 1000, timezone.utc)
        marked = found.tags.get(facts.marker(kind, change.key), "")
        fields["event_id"] = state.event_id(change, source, marked)
        return MessageToJson(complete(model_ready(**fields), ""), indent=None)

    def _names(self) -> Iterator[str]:
        search = self._client.search_registered_models
        page = search(max_results=PAGE)
        yield from (model.name for model in page)
        while page.token:
            page = search(max_results=PAGE, page_token=page.token)
            yield from (model.name for model in page)

    def _slots(self, name: str) -> Iterator[tuple[Slot, str]]:
        # The search gives no aliases.
        model = _unless_gone(lambda: self._client.get_registered_model(name))
        if model is None or facts.is_prompt(model.tags):
            return
        for alias, version in model.aliases.items():
            if self._settings.wants(ALIAS, name, alias):
                yield Slot(ALIAS, name, (alias,)), str(version)
        if self._kinds == {ALIAS}:
            return
        for found in self._versions(name):
            version = str(found.version)
            if self._settings.wants(VERSION, name):
                yield Slot(VERSION, name, (version,)), str(found.creation_timestamp)
            if found.current_stage and self._settings.wants(STAGE, name, found.current_stage):
                yield Slot(STAGE, name, (version,)), found.current_stage
            for key, value in found.tags.items():
                if self._settings.wants(TAG, name, key, value):
                    yield Slot(TAG, name, (version, key)), value

    def _versions(self, name: str) -> Iterator[Any]:
        quoted = name.replace("'", "\\'")
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{quoted}'", max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _metrics(self, run_id: str | None) -> dict[str, float]:
        if not run_id:
            return {}
        try:
            return facts.metrics(self._client.get_run(run_id).data.metrics.items())
        except MlflowException as error:
            facts.log_once("an event goes without its run's metrics: %s", error)
            return {}


def _unless_gone(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except MlflowException as error:
        if error.error_code == GONE:
            return None
        raise

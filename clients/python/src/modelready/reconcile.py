"""modelready-reconcile: publish what changed in an MLflow registry that has no place for a plug-in.

It reads the registry through MLflow's REST API, compares it with what it saw the last time, and publishes an event for
each alias that holds another version. The first run publishes nothing. Of several changes of one alias between two runs
it sees the last.

MLFLOW_TRACKING_URI and MLflow's variables for logins say which registry, MODELREADY_MLFLOW_EVENTS, _MODELS, _TAGS and
_SOURCE which changes and how the registry is called, MODELREADY_SIDECAR where the sidecar is, SIDECAR_API_TOKEN its
token. Exit codes: 0 done, 1 the registry, the sidecar or the state's place failed or an event was refused, 2 wrong
usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.json_format import Parse

from modelready._environment import add_options, options_of
from modelready.errors import InvalidEvent, PublishError
from modelready.publisher import Publisher
from modelready.receipt import Durability
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from modelready.mlflow.registry_reader import RegistryReader
    from modelready.mlflow.settings import Settings
    from modelready.mlflow.state import StateStore

logger = logging.getLogger("modelready.reconcile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 - `--help` works without it

        from modelready.mlflow.registry_reader import RegistryReader  # noqa: PLC0415 - as above
        from modelready.mlflow.settings import Settings  # noqa: PLC0415 - as above
        from modelready.mlflow.state import state_store  # noqa: PLC0415 - as above

        settings = Settings.from_env()
        store = state_store(options.state)
        publisher = Publisher.from_env(**options_of(options))
    except ModuleNotFoundError as error:
        print(f"modelready-reconcile: {error}: pip install 'modelready[mlflow]'", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"modelready-reconcile: {error}", file=sys.stderr)
        return 2
    if options.tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = options.tracking_uri  # for what fetches artifacts, too
    reader = RegistryReader(MlflowClient(registry_uri=options.registry_uri), settings)
    with publisher:
        reconciler = Reconciler(store, reader, publisher, settings, publish_existing=options.publish_existing)
        return reconciler.run(options.every) if options.every else reconciler.run_once()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelready-reconcile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--state", required=True, metavar="FILE|URL", help="where it remembers what it saw: a file, or a database's URL"
    )
    add("--every", type=float, default=0.0, metavar="SECONDS", help="go on, with this pause, until SIGTERM")
    add("--publish-existing", action="store_true", help="on the first run, publish what is there")
    add("--tracking-uri", metavar="URI", help="the MLflow server (default: MLFLOW_TRACKING_URI)")
    add("--registry-uri", metavar="URI", help="its registry, where that is another one (default: MLFLOW_REGISTRY_URI)")
    add_options(parser)
    return parser


class Stopped(BaseException):
    """SIGTERM or SIGINT came. Raised anywhere, since MLflow's client may be in the middle of minutes of retries."""


class Reconciler:
    """Compares, remembers, publishes, in this order: what was decided on is published after a crash, too."""

    def __init__(
        self,
        store: StateStore,
        reader: RegistryReader,
        publisher: Publisher,
        settings: Settings,
        *,
        publish_existing: bool = False,
    ) -> None:
        self._store = store
        self._reader = reader
        self._publisher = publisher
        self._settings = settings
        self._publish_existing = publish_existing

    def run(self, seconds: float) -> int:
        """Do it again and again until SIGTERM or SIGINT, which may interrupt it anywhere: the state bears a crash."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        try:
            while True:
                self.run_once()
                time.sleep(seconds)
        except Stopped:
            return 0

    def run_once(self) -> int:
        """Do it once; return the exit code. Logs what failed."""
        try:
            return self._reconcile()
        except Exception as error:  # noqa: BLE001 - MLflow's client, the database's driver and the sidecar have their own
            logger.error("nothing is published: %s: %s", type(error).__name__, error)  # noqa: TRY400 - no traceback
            return 1

    def _reconcile(self) -> int:
        from modelready.mlflow.reconciliation import State, reconcile  # noqa: PLC0415 - see `main`

        state = self._store.load() or State()
        first = state.scope is None
        read_at = time.time_ns() // 1_000_000
        snapshot = self._reader.snapshot(state)
        added = reconcile(
            state,
            snapshot,
            self._settings,
            lambda change: self._reader.event_of(change, state),
            read_at=read_at,
            publish_existing=self._publish_existing and first,
        )
        self._store.save(state)
        if first:
            logger.info("first run: %d values are remembered, %d events are published", len(snapshot), added)
        if not state.pending:
            return 0
        refused = self._publish(state.pending)
        state.pending = []
        self._store.save(state)
        return 1 if refused else 0

    def _publish(self, pending: Sequence[str]) -> int:
        """Return how many were refused permanently; raise PublishError where a later attempt may succeed."""
        events = [Parse(event, ModelReadyToDeploy()) for event in pending]
        refused = 0
        results = self._publisher.publish_many(events, durability=Durability.PRIMARY)
        for event, result in zip(events, results, strict=True):
            if isinstance(result, InvalidEvent):
                refused += 1
                logger.error("event %s of %s is refused: %s", event.event_id, event.model.name, result.message)
            elif isinstance(result, PublishError):
                raise result
            else:
                logger.info("published %s version %s as %s", event.model.name, event.model.version, result.outcome.name)
        return refused


def _stop(*_: object) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())

"""What both publishers are made of, without I/O."""

from __future__ import annotations

from modelready._channel import TLS, call_metadata, channel_options
from modelready._retry import Attempts
from modelready._window import Window
from modelready.event import EventFields, complete, model_ready
from modelready.receipt import DURABILITIES, Durability
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy


class PublisherBase:
    """The settings of a publisher, and what follows from them."""

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        tls: TLS | None = None,
        timeout: float = 5.0,
        durability: Durability = Durability.UNSPECIFIED,
        source: str = "",
    ) -> None:
        self._target = target
        self._metadata = call_metadata(token)
        self._credentials = tls.credentials() if tls else None
        self._options = channel_options(tls)
        self._timeout = timeout
        self._durability = durability
        self._source = source
        self._closed = False

    def _request(self, event: ModelReadyToDeploy, durability: Durability | None) -> pb.PublishRequest:
        durability = durability or self._durability
        return pb.PublishRequest(event=complete(event, self._source), durability=DURABILITIES[durability])

    def _complete(self, fields: EventFields) -> ModelReadyToDeploy:
        return complete(model_ready(**fields), self._source)

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(self._timeout if timeout is None else timeout)

    def _window(self, *, frame: int, in_flight: int, durability: Durability | None, timeout: float) -> Window:
        return Window(
            frame=frame,
            in_flight=in_flight,
            durability=durability or self._durability,
            source=self._source,
            timeout=timeout,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the publisher is closed")

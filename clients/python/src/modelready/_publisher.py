"""What both publishers are made of, without I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelready._channel import TLS, call_metadata, channel_options, checked_address, checked_seconds, checked_tls
from modelready._environment import PublisherOptions, sidecar_options
from modelready._retry import Attempts
from modelready._window import Window
from modelready.event import EventFields, checked_text, complete, model_ready
from modelready.receipt import DURABILITIES, Durability, checked_durability
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class PublisherBase:
    """The settings of a publisher, and what follows from them.

    Raises TypeError or ValueError, which says what a setting may be, for a wrong one.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        tls: TLS | None = None,
        timeout: float = 5.0,
        durability: Durability | str = Durability.UNSPECIFIED,
        source: str = "",
    ) -> None:
        tls = checked_tls(tls)
        self._target = checked_address(target)
        self._metadata = call_metadata(token)
        self._credentials = tls.credentials() if tls else None
        self._options = channel_options(tls)
        self._timeout = checked_seconds("timeout", timeout)
        self._durability = checked_durability(durability)
        self._source = checked_text("source", source)
        self._closed = False

    @classmethod
    def from_env(cls, *, environ: Mapping[str, str] | None = None, **options: Unpack[PublisherOptions]) -> Self:
        """A publisher for the sidecar that the environment names; what `options` give counts before it.

            MODELREADY_SIDECAR             its address, host:port or unix:/path; 127.0.0.1:50051 by default
            SIDECAR_API_TOKEN              its token, where it asks for one
            MODELREADY_TLS                 true: speak TLS, and trust the system's authorities
            MODELREADY_TLS_CA_FILE         speak TLS, and trust this authority
            MODELREADY_TLS_CERT_FILE       our certificate, where the sidecar asks for one, and
            MODELREADY_TLS_KEY_FILE        its private key
            MODELREADY_TLS_SERVER_NAME     the name in the sidecar's certificate, where it is not the address's

        An empty variable counts as absent. Raises ValueError, which names the variable.
        """
        return cls(**sidecar_options(os.environ if environ is None else environ, options))

    @property
    def target(self) -> str:
        """The sidecar's address."""
        return self._target

    def _request(self, event: ModelReadyToDeploy, durability: Durability | str | None) -> pb.PublishRequest:
        asked = DURABILITIES[self._asked(durability)]
        return pb.PublishRequest(event=complete(event, self._source), durability=asked)

    def _asked(self, durability: Durability | str | None) -> Durability:
        return self._durability if durability is None else checked_durability(durability)

    def _complete(self, fields: EventFields) -> ModelReadyToDeploy:
        return complete(model_ready(**fields), self._source)

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(self._timeout if timeout is None else checked_seconds("timeout", timeout))

    def _window(self, *, frame: int, in_flight: int, durability: Durability | str | None, timeout: float) -> Window:
        return Window(
            frame=frame,
            in_flight=in_flight,
            durability=self._asked(durability),
            source=self._source,
            timeout=checked_seconds("timeout", timeout),
        )

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the publisher is closed")

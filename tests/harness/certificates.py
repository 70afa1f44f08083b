"""A certificate authority for the tests, and every kind of certificate that a client should take or refuse."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class TLSFiles:
    """PEM files: a certificate with its chain, its key, and the authority that vouches for it."""

    cert: Path
    key: Path
    ca: Path


class Authority:
    """Issues certificates and writes them into `directory`. Two authorities do not trust each other.

    Give two authorities of one directory different names.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = name
        self._issued = 0
        self._authority = trustme.CA(organization_name=name)
        self.ca = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def server(self, *names: str) -> TLSFiles:
        """For these names or addresses; by default 127.0.0.1 and localhost."""
        return self._issue(names or ("127.0.0.1", "localhost"))

    def client(self, name: str = "client.invalid") -> TLSFiles:
        return self._issue((name,))

    def wrong_name(self) -> TLSFiles:
        """A server's, valid, but for another host."""
        return self._issue(("elsewhere.invalid",))

    def expired(self) -> TLSFiles:
        """For 127.0.0.1 and localhost, until yesterday."""
        now = datetime.now(UTC)
        return self._issue(("127.0.0.1", "localhost"), now - timedelta(days=2), now - timedelta(days=1))

    def _issue(
        self, names: tuple[str, ...], not_before: datetime | None = None, not_after: datetime | None = None
    ) -> TLSFiles:
        issued = self._authority.issue_cert(*names, not_before=not_before, not_after=not_after)
        self._issued += 1
        cert = self._directory / f"{self._name}-{self._issued}.pem"
        key = self._directory / f"{self._name}-{self._issued}.key"
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(key))
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return TLSFiles(cert, key, self.ca)

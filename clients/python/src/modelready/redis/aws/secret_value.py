"""One secret of AWS Secrets Manager, read and understood. This blocks: call it in a thread."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from modelready.credentials import Credentials

CONNECT_SECONDS = 2
READ_SECONDS = 3
ATTEMPTS = 2
_USER = re.compile(r"//[^/@\s]*@")  # of an endpoint's URL


class Unreadable(Exception):
    """Why a secret gives no credentials, never what it holds. `kind` stays the same while the details change."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class SecretValue:
    """The token itself, or JSON with the token under `key` and, unless it is given, the `username`."""

    def __init__(
        self, secret_id: str, key: str, username: str | None, region: str | None, endpoint_url: str | None
    ) -> None:
        arn = secret_id.split(":")  # arn:aws:secretsmanager:<region>:<account>:secret:<name>
        self.id = secret_id
        self._key = key
        self._username = username or None
        self._region = arn[3] if len(arn) > 6 else region or None  # it can be read nowhere else
        self._endpoint_url = endpoint_url or None
        self._client: Any = None

    def read(self, stage: str) -> Credentials:
        """Return the credentials of that stage (AWSCURRENT or AWSPENDING), in 12 seconds or less. Raises Unreadable."""
        text = self._fetch(stage).removeprefix("\ufeff")  # which some editors write before a text
        if not text.lstrip().startswith("{"):
            return self._credentials(text, self._username, "its value")
        try:
            fields = json.loads(text, strict=False)  # a newline within a string is no reason to be without Redis
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Unreadable("it starts as JSON does but is none")  # raised here: the ValueError holds the text
        username = self._username or fields.get("username")
        return self._credentials(fields.get(self._key), username, f"its key {self._key!r} (REDIS_AUTH_SECRET_KEY)")

    def _credentials(self, token: object, username: object, where: str) -> Credentials:
        token = token.rstrip("\r\n") if isinstance(token, str) else token  # what was made from a file ends with one
        if not token or not _is_text(token):
            raise Unreadable(f"{where} is missing, empty or no text")
        if username is not None and not _is_text(username):  # never another user than was meant
            raise Unreadable("its key 'username' is no text")
        return Credentials(cast("str | None", username), cast("str", token))

    def _fetch(self, stage: str) -> str:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - 100 ms and 30 MB, only when used

        try:
            self._client = self._client or self._connect()
            answer = self._client.get_secret_value(SecretId=self.id, VersionStage=stage)
        except ClientError as error:
            # The first paragraph: the others may quote the request, with the session's token among its headers.
            said = " ".join(error.response["Error"]["Message"].partition("\n\n")[0].split())
            raise Unreadable(error.response["Error"]["Code"], said) from None
        except BotoCoreError as error:
            raise Unreadable(type(error).__name__, _USER.sub("//***@", str(error))) from error
        except Exception as error:  # nothing that AWS's library raises may end its user
            raise Unreadable(type(error).__name__) from error
        text = answer.get("SecretString")
        if not isinstance(text, str):
            raise Unreadable("it is binary, not text")
        return text

    def _connect(self) -> Any:
        import boto3  # noqa: PLC0415 - see above
        from botocore.config import Config  # noqa: PLC0415

        retries = {"total_max_attempts": ATTEMPTS, "mode": "standard"}
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
        session = boto3.session.Session(region_name=self._region)  # boto3's default session is not for threads
        return session.client("secretsmanager", endpoint_url=self._endpoint_url, config=config)


def _is_text(value: object) -> bool:
    """Whether Redis can be sent it: JSON may hold halves of characters, too."""
    return isinstance(value, str) and value == value.encode(errors="ignore").decode()

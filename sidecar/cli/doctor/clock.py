"""AWS's time, from the Date header of any answer of it: signatures that are minutes off are refused."""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from modelready.redis.settings import RedisSettings

_TIMEOUT_SECONDS = 3.0


def clock_skew(redis: RedisSettings) -> float | None:
    """How many seconds this machine's clock is ahead of AWS's, to a second or two. None where AWS does not answer.

    Nothing is signed and nothing secret is said: an answer that refuses has the header as well.
    """
    url = urlsplit(redis.aws_endpoint_url or f"https://sts.{redis.aws_region or 'us-east-1'}.amazonaws.com")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS)) as connection:
            connection.request("HEAD", "/")
            date = connection.getresponse().headers["Date"]
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None

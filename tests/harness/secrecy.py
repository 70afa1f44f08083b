"""No secret in anything that a sidecar shows: the harness looks at all that it logs, serves, answers and prints.

A secret is whatever a variable of VARIABLES held in any sidecar that this process of the tests started, and what a test
names with `keep`. One shorter than eight characters is a word like others, and is not searched for.
"""

from collections.abc import Mapping
from urllib.parse import quote, quote_plus

VARIABLES = (
    "REDIS_AUTH_TOKEN",
    "OUTBOX_PASSWORD",
    "SIDECAR_API_TOKEN",
    "SIDECAR_ADMIN_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_LEAST_CHARACTERS = 8
_secrets: set[str] = set()


def keep(*secrets: str) -> None:
    """Search for these from now on, also as they stand in a URL or in JSON."""
    for secret in secrets:
        if len(secret) >= _LEAST_CHARACTERS:
            in_json = secret.replace("\\", "\\\\").replace('"', '\\"')
            _secrets.update((secret, quote(secret, safe=""), quote_plus(secret), in_json))


def keep_those_of(env: Mapping[str, str]) -> None:
    """Search for the secrets of a sidecar's environment."""
    keep(*(env.get(name, "") for name in VARIABLES))


def shown(text: str, where: str) -> str:
    """The text, which anyone may see; AssertionError, without the secret, where it holds one."""
    for secret in _secrets:
        before, found, _ = text.partition(secret)
        if found:
            raise AssertionError(f"a secret of {len(secret)} characters is in {where}, behind: {before[-200:]!r}")
    return text

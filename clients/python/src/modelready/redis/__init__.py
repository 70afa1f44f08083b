"""How the sidecar and the consumers reach Redis: one stack for both.

    env          variables of the environment, and how a group of them is read
    settings     the REDIS_... variables
    lists        the QUEUE_LIST variables
    faults       what each error means: transient, refused credentials, a fault of set-up, or refused for ever
    sockets      names and addresses of hosts
    connection   one connection to one node
    cluster      which node owns the queue
    pool         the connections of one process, and calls through them
    blocking     the same for callers without an event loop
    script       Lua scripts
    certificates certificate files that are read again when they change
    aws          credentials from Secrets Manager and from IAM

`env`, `settings`, `lists` and `aws` do not import redis.
"""

from importlib.util import find_spec

if find_spec("redis") is None:
    raise ImportError(
        "the consumer needs redis: pip install 'modelready[consumer]', or 'modelready[testing]' for its tests"
    )

"""The page for people: how the queue stands, its last hour, and its dead letters, which can be mended here.

Rendered here, without scripts of others, without a build, and without a request to anywhere else. It is served from the
HTTP thread and asks the event loop, for a bounded time, by `backstage`.
"""

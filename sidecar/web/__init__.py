"""HTTP: the page for people, /metrics, /healthz and /readyz.

A request goes through `server` (uvicorn in a thread), `app` (the routes for programs, and what guards the page) and
`console` (the routes of the page), which calls the sidecar's event loop by `calls`.
The page loads nothing from elsewhere.
"""

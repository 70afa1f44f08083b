"""`python -m sidecar` is `modelready-sidecar`."""

from sidecar.cli import main

raise SystemExit(main())

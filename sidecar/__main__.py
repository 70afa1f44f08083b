"""`python -m sidecar` is `modelready-sidecar`."""

import os
import signal

if os.getpid() == 1:  # in a container, where SIGTERM does nothing until somebody handles it; nothing is begun yet
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

from sidecar.cli.main import main  # after that, since it takes a while

if __name__ == "__main__":
    raise SystemExit(main())

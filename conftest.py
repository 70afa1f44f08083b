"""What holds for all tests, the client's too."""

import signal

pytest_plugins = ("tests.harness.processes", "tests.harness.fixtures")

# Where a shell runs them in the background it has Ctrl-C ignored, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

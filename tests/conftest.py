"""What all tests share: how the programs that they start take signals."""

from __future__ import annotations

import os
import signal

# A run in the background (`nohup ./runtests &`) ignores these, and so would all that it starts; tests send them.
# A handler that does nothing keeps the run itself alive, and is no more in what is started. Workers are started.
INHERITED = "AVS_TESTS_IGNORE"

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        os.environ[INHERITED] = f"{os.environ.get(INHERITED, '')} {int(number)}"
    if str(int(number)) in os.environ.get(INHERITED, "").split():
        signal.signal(number, lambda *_: None)

"""The tests of what is large, at the full size: a file of 3 GB with a hole, and 150,000 files.

`python tests/benchmarks/large.py`, as root; ten minutes and 10 GB. It says how long each part took, and fails
where a tree comes back other than it was or a scan takes more than 250 MB of memory. Options go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    argv = [sys.executable, "-m", "pytest", "-s", "--durations=0", "tests/integration/test_large.py", *sys.argv[1:]]
    sys.exit(subprocess.run(argv, cwd=TOP, env={**os.environ, "AVS_LARGE": "1"}, check=False).returncode)

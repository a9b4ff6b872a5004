"""Imported by every interpreter that finds this folder in PYTHONPATH: gives a worker another threshold."""

import os
import sys

if "BENCH_SPLICE_AFTER_BYTES" in os.environ and "edgeproxy.worker" in sys.orig_argv:
    from edgeproxy.worker import relay_splice

    relay_splice._AFTER_BYTES = int(os.environ["BENCH_SPLICE_AFTER_BYTES"])  # noqa: SLF001

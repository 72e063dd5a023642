"""``python -m benchmarks``: the example recipes on the evaluation data; see ``benchmarks.quality``."""

from benchmarks.quality import main

main()

"""``python -m tfmmrank``: the command line."""

from tfmmrank.cli.main import main

main()

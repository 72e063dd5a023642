"""The command line: thin commands over the package's own functions. One file a command."""

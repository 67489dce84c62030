"""One file for each group of `nis-ota` commands; heavy imports wait until a command runs."""

"""The commands of `nis-edge` (roof): one file each, imported only when that command runs."""

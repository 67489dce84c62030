"""One foreign thing per file (floor 4). Adapters never import each other and translate foreign errors at the sill."""

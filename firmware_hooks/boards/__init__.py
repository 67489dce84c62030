"""Board descriptions: rails, paths and units, one TOML file a board."""

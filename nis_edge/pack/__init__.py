"""The model package `.nis`: the one definition of the bytes (floor 1). See models/FORMAT.md."""

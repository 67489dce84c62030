"""The model that ships with nis-edge; see the card beside it."""

"""Bytes to frozen records and back (floor 1): topics, messages, codec."""

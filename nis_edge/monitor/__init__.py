"""Pure judgement over agents and device (floor 3): no clock, no I/O, no chance."""

"""Measurements of updates: a simulated fleet, real clients on one machine, attackers and what they could do."""

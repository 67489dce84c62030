"""The publisher of signed model updates. Never imported by nis_edge."""

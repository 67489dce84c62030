"""Conservation laws on numbers with units: consistent, violation or undecidable, with the residual and its error. Pure.

``checks.check`` is the door. Nothing here reads text: who has text names the law and fills its roles first.
"""

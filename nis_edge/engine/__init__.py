"""A model over a mapped package (floor 2): model, tokenizer, session, numpy reference."""

"""Pure update judgement (floor 3): the transition table, the slot plan, the journal's bytes."""

"""The C engine and its binding (floor 2): kernels and the forward pass, no Python in the hot loop."""

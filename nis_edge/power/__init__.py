"""Pure power honesty (floor 3): readings to watts, joules and grades."""

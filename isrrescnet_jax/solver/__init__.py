"""Where physics and prior meet: the iteration, and what runs it."""

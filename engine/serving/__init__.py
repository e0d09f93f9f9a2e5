"""Many requests under one scheduler: queue, slots, budgets, and the trace of who got what."""

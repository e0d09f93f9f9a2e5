"""The same scheduler on measured profiles and a virtual clock: fleets that no one has at hand."""

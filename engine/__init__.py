"""Tree-based speculative decoding: models, caches, drafters, verification. Torch, no interface."""

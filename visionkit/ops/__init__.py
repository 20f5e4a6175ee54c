"""Pure functions on tensors: `keras.ops` only, XLA-safe, no state."""

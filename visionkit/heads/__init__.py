"""Heads: from pyramid levels to a task's raw outputs (logits, deltas)."""

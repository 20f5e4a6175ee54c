"""Recipes, optimizers, schedules, callbacks and crash-safe checkpoints."""

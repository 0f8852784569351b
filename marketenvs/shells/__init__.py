"""Thin shells of a market for the frameworks' interfaces; each imports its framework lazily."""

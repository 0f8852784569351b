"""From states of the AI-Bazaar market to its solvers, and back to certified equilibria."""

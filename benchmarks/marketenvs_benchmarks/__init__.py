"""Leaderboard, suites of tasks, reproductions of the papers, and throughput."""

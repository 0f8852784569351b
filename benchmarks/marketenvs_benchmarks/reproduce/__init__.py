"""Reproductions: one experiment file per paper, ``main(folder, console, quick)``; the claim beside what was found."""

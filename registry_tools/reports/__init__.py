"""Build self-contained HTML pages without scripts, for screen and print, in light and dark mode."""
